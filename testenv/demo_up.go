package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/testenv/netlab"
	"mayfly/testenv/supervise"
)

// up starts the controller's processes, the bastion, the target and the three servers.
func (d *demo) up(ctx context.Context) error {
	if err := d.must("target and DNS root answer", func() (string, error) { return d.startTarget(ctx) }); err != nil {
		return err
	}
	if err := d.must("controller runs as three processes", func() (string, error) { return d.startController(ctx) }); err != nil {
		return err
	}
	if err := d.must("bastion serves with a certified host key", func() (string, error) { return d.startBastion(ctx) }); err != nil {
		return err
	}
	if err := d.startAgents(ctx); err != nil {
		return err
	}
	began := time.Now()
	_, rotateErr := d.rotateNow(ctx, "first boot")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	servers, err := d.servers(ctx)
	if err != nil {
		return err
	}
	events, err := d.events(ctx, 0)
	if err != nil {
		return err
	}
	for _, m := range machines {
		err = errors.Join(err, d.must(m.Name+" booted, joined and serves", func() (string, error) {
			s := servers[m.Name]
			if s.State != inventory.Serving {
				return "", fmt.Errorf("state %s, cause %q; console ends:\n%s", s.State, s.Cause, d.consoleOf(ctx, m))
			}
			return bootTimes(events, m.Name, s.Epoch), nil
		}))
	}
	if err := errors.Join(rotateErr, err); err != nil {
		return err
	}
	d.say("  three servers in %s", took(began))
	d.r.check("nothing listens beyond loopback and the lab", func() (string, error) { return d.listeners() })
	return nil
}

// consoleOf is the end of a server's console.
func (d *demo) consoleOf(ctx context.Context, m machine) string {
	if d.e.engine == "" {
		return supervise.Tail(d.e.fleet("machines", m.Name, "console.log"), 8)
	}
	c, err := d.e.container(m)
	if err != nil {
		return err.Error()
	}
	text, err := c.Console(ctx)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// daemon starts a long-lived program inside a namespace and waits for its word.
func (d *demo) daemon(ctx context.Context, name string, n netlab.Namespace, word string, cmd *exec.Cmd) (*supervise.Process, error) {
	start := n.Start
	if n.Name == "" {
		start = (*exec.Cmd).Start
	}
	p, err := d.e.table.Start(name, cmd, start)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return p, p.WaitLine(ctx, word)
}

// background is a program that ends with the environment, not with a context.
func (d *demo) background(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = d.e.dir
	cmd.Env = d.e.environ()
	return cmd
}

func (d *demo) startTarget(ctx context.Context) (string, error) {
	e := d.e
	web := netip.AddrPortFrom(netlab.WebTarget, webPort)
	root := netip.AddrPortFrom(netlab.DNSRoot, 53)
	if _, err := d.daemon(ctx, "web", e.lab.Target, ready, d.background(e.bin("testenv"), "part", "web", "--listen", web.String())); err != nil {
		return "", err
	}
	if _, err := d.daemon(ctx, "dns", e.lab.Target, ready, d.background(e.bin("testenv"), "part", "dns", "--zone", e.path("dns", "root.zone"), "--listen", root.String())); err != nil {
		return "", err
	}
	asking, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	inside := func(ctx context.Context, network, address string) (net.Conn, error) {
		return e.lab.Target.DialContext(ctx, network, address, netip.Addr{})
	}
	if err := errors.Join(askWeb(asking, inside, web), askRoot(asking, inside, root, netlab.WebTarget)); err != nil {
		return "", err
	}
	short, cancel := context.WithTimeout(ctx, silentLimit/3)
	defer cancel()
	if err := unanswered(e.lab.Client.DialContext(short, "tcp", web.String(), netlab.Engineer)); err != nil {
		return "", fmt.Errorf("the client without a tunnel: %w: the lab proves nothing", err)
	}
	return fmt.Sprintf("%s and %s; the client does not reach them without a tunnel", web, root), nil
}

func (d *demo) startController(ctx context.Context) (string, error) {
	for _, verb := range []string{"serve", "checkin"} { // the signer runs since there was a release to log
		if err := d.startProcess(ctx, verb); err != nil {
			return "", err
		}
	}
	info, err := os.Stat(d.e.fleet("signer.sock"))
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("signer.sock has mode %04o", info.Mode().Perm())
	}
	return "signer, serve and checkin are ready", nil
}

// startProcess starts one of the controller's processes.
func (d *demo) startProcess(ctx context.Context, verb string) error {
	cmd := d.background(d.e.bin("fleetctl"), verb, "--dir", d.e.fleet())
	cmd.Dir = d.e.fleet()
	_, err := d.daemon(ctx, verb, d.e.lab.Core, "ready", cmd)
	return err
}

// startPublishing starts who takes part when a release is published: the signer, which writes the ledger, and the witness.
func (d *demo) startPublishing(ctx context.Context) error {
	if err := d.startProcess(ctx, "signer"); err != nil {
		return err
	}
	cmd := d.background(d.e.bin("fleetctl"), "witness", "--trust", d.e.fleet("trust.json"), "--key", d.e.path("keys", witnessName), "--state", d.e.path("witness"),
		"--listen", netip.AddrPortFrom(netlab.Controller, witnessPort).String())
	_, err := d.daemon(ctx, "witness", d.e.lab.Core, "fleetctl: witness: ready", cmd)
	return err
}

func (d *demo) startBastion(ctx context.Context) (string, error) {
	e := d.e
	key := e.path("bastion", "host_key")
	if err := softwareKey(key, "bastion host key"); err != nil {
		return "", err
	}
	if _, err := d.fleetctl(ctx, "certify", "--bastion", bastionName, "--key", key+".pub"); err != nil {
		return "", err
	}
	config := fmt.Sprintf("listen = %q\ntrust = %q\nbundle = %q\nhost_key = %q\nhost_certificate = %q\naudit = %q\ncontroller_ca = %q\nstatements = %q\ndrain_limit = \"1s\"\nwitnesses = [%q]\n",
		netip.AddrPortFrom(netlab.Bastion, bastionPort), e.fleet("trust.json"), e.fleet("bundle.json"), key, key+"-cert.pub", d.auditDir(), e.fleet("tls-ca.pem"), e.fleet("statements"), witnessURL)
	if err := d.write(e.path("bastion", "bastion.toml"), []byte(config), 0o600); err != nil {
		return "", err
	}
	if err := d.publishPolicy(ctx); err != nil {
		return "", err
	}
	if _, err := e.outputIn(ctx, e.lab.Core, e.bin("bastion"), "check", "--config", e.path("bastion", "bastion.toml")); err != nil {
		return "", err
	}
	_, err := d.daemon(ctx, "bastion", e.lab.Core, "bastion: serve: ready", d.background(e.bin("bastion"), "serve", "--config", e.path("bastion", "bastion.toml")))
	if err == nil {
		_, err = d.daemon(ctx, "bastion-renew", e.lab.Core, "bastion: renew: ready", d.background(e.bin("bastion"), "renew", "--config", e.path("bastion", "bastion.toml")))
	}
	return fmt.Sprintf("at %s:%d", netlab.Bastion, bastionPort), err
}

// witnessURL is where the fleet's witness answers.
var witnessURL = "http://" + netip.AddrPortFrom(netlab.Controller, witnessPort).String()

// publishPolicy sees that the bastion takes no policy that the witness does not know, and publishes it.
func (d *demo) publishPolicy(ctx context.Context) error {
	e := d.e
	if err := d.must("a policy that no witness confirms does not load", func() (string, error) {
		_, err := e.outputIn(ctx, e.lab.Core, e.bin("bastion"), "check", "--config", e.path("bastion", "bastion.toml"))
		var f *failure
		if !errors.As(err, &f) || f.code != command.Refused || !strings.Contains(f.said, "witness_missing") {
			return "", fmt.Errorf("bastion check: %w", orDone(err))
		}
		return errorLine(f.said), nil
	}); err != nil {
		return err
	}
	_, err := d.fleetctl(ctx, "policy", "publish", "--witness", witnessURL)
	return err
}

func (d *demo) auditDir() string { return d.e.path("bastion", "audit") }

// startAgents starts the agents of software authenticators: bob's, bob's without a touch, and alice's where she has no card.
func (d *demo) startAgents(ctx context.Context) error {
	for _, a := range []struct{ name, key, touch string }{
		{colleague, colleague, "verified"}, {"untouched", colleague, "never"}, {engineer, engineer, "verified"},
	} {
		if a.name == engineer && d.e.hasCards() {
			continue // the cards' agent runs
		}
		p, err := d.daemon(ctx, "agent-"+a.name, netlab.Namespace{}, "ready",
			d.background(d.e.bin("testenv"), "softkey", "serve", "--socket", d.agentSocket(a.name), "--touch", a.touch, d.e.path("keys", a.key)))
		if err != nil {
			return err
		}
		d.agents[a.name] = p
	}
	_, err := d.fleetctl(ctx, "ssh-config", "--user", engineer, "-o", d.sshConfig(""))
	if err == nil && d.e.hasCards() {
		_, err = d.fleetctl(ctx, append([]string{"ssh-config", "--user", engineer, "-o", d.sshConfig(engineer)}, d.identity()...)...)
	}
	return err
}

// agentSocket is in a short directory: a Unix socket's path has at most 107 bytes.
func (d *demo) agentSocket(name string) string {
	if name == engineer && d.e.hasCards() {
		return d.e.cardSocket()
	}
	return d.e.path("ssh", name+".sock")
}

// sshConfig is the ssh_config to use with an agent. One that holds several people's cards has to be told whose is meant.
func (d *demo) sshConfig(agent string) string {
	if agent == engineer && d.e.hasCards() {
		return d.e.path("ssh", "config-"+engineer)
	}
	return d.e.path("ssh", "config")
}

// rotateNow runs `fleetctl rotate --all` to its end.
func (d *demo) rotateNow(ctx context.Context, why string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, rotateLimit)
	defer cancel()
	cmd := d.e.command(ctx, d.e.bin("fleetctl"), "rotate", "--all", "-o", "json")
	cmd.Dir = d.e.fleet()
	var out strings.Builder
	cmd.Stdout = &out
	p, err := d.e.table.Start("rotate", cmd, d.e.lab.Core.Start)
	if err != nil {
		return "", err
	}
	<-p.Done()
	if err := p.Err(); err != nil {
		return out.String(), fmt.Errorf("fleetctl rotate (%s): %w; it said:\n%s", why, err, supervise.Tail(p.Log, 12))
	}
	return out.String(), nil
}

// servers reads the controller's store.
func (d *demo) servers(ctx context.Context) (map[string]store.Server, error) {
	s, err := sqlite.Open(ctx, d.e.fleet("store.db"))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	all, err := s.Servers(ctx)
	if err != nil {
		return nil, err
	}
	servers := map[string]store.Server{}
	for _, one := range all {
		servers[one.Name] = one
	}
	return servers, nil
}

func (d *demo) events(ctx context.Context, after int64) ([]store.Event, error) {
	s, err := sqlite.Open(ctx, d.e.fleet("store.db"))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Events(ctx, after)
}

// bootTimes says how long a server's last life took to begin.
func bootTimes(events []store.Event, name string, epoch uint64) string {
	at := map[inventory.State]time.Time{}
	for _, ev := range events {
		if ev.Server == name && ev.Epoch == epoch {
			at[inventory.State(ev.To)] = ev.At
		}
	}
	seconds := func(from, to inventory.State) float64 { return at[to].Sub(at[from]).Seconds() }
	return fmt.Sprintf("power on to joined %.1f s, to healthy %.1f s, to serving %.1f s", seconds(inventory.Booting, inventory.Attesting),
		seconds(inventory.Booting, inventory.Baking), seconds(inventory.Booting, inventory.Serving))
}

// markUp says that the environment is meant to stay, and hands its files to the user who called.
func (e *environment) markUp() error {
	if err := durable.WriteFile(e.upFile(), []byte("{}\n"), 0o644); err != nil {
		return err
	}
	return e.owner.give(e.dir)
}
