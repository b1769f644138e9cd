package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"mayfly/testenv/netlab"
	"mayfly/testenv/rawssh"
)

// sshCommand is OpenSSH's client inside the client's namespace, with an agent and nothing of this machine's configuration.
func (d *demo) sshCommand(ctx context.Context, agent string, args ...string) *exec.Cmd {
	cmd := d.e.command(ctx, "ssh", append([]string{"-F", d.sshConfig(agent), "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"}, args...)...)
	if agent != "" {
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+d.agentSocket(agent))
	} else {
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK=")
	}
	return cmd
}

// ssh runs a command on a server through the bastion.
func (d *demo) ssh(ctx context.Context, server, stdin, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sshLimit)
	defer cancel()
	cmd := d.sshCommand(ctx, engineer, server, command)
	cmd.Stdin = strings.NewReader(stdin)
	return outputOf(cmd, d.e.lab.Client.Start)
}

// login logs in for real, and then sees each of the refusals happen for its own reason.
func (d *demo) login(ctx context.Context) error {
	for _, m := range machines {
		if err := d.must("ssh -J to "+m.Name+" with a security key", func() (string, error) {
			out, err := d.ssh(ctx, m.Name, "", "hostname; id -un")
			if err != nil {
				return "", err
			}
			if got, want := strings.Fields(out), []string{m.Name, engineer}; strings.Join(got, " ") != strings.Join(want, " ") {
				return "", fmt.Errorf("got host and user %q, want %q", got, want)
			}
			return "host and user are right; no question was asked", nil
		}); err != nil {
			return err
		}
	}
	if d.e.hasCards() {
		for _, m := range machines {
			d.r.check("one touch of the card for each hop to "+m.Name+", and the record says with what", func() (string, error) { return d.cardLogin(ctx, m.Name) })
		}
		d.r.check("fleetctl key show tells the key's evidence and last use", func() (string, error) { return d.keyShown(ctx) })
	}
	d.r.check("servers report the logins, and the bastion recorded each", func() (string, error) { return d.reported(ctx) })
	d.r.check("hosts are believed by the SSH host CA alone", func() (string, error) { return d.hostCA(ctx) })
	d.r.check("no disk, no swap, nothing writable but RAM", func() (string, error) {
		var said []string
		for _, m := range machines {
			s, err := d.inMemory(ctx, m.Name)
			if err != nil {
				return "", fmt.Errorf("%s: %w", m.Name, err)
			}
			said = append(said, m.Name+": "+s)
		}
		return strings.Join(said, "; "), nil
	})
	d.r.check("an engineer's session is bounded, and reaches nothing", func() (string, error) { return d.confined(ctx, machines[0].Name) })

	// What follows costs the source its welcome, unless somebody is in from there.
	leave, err := d.stayIn(ctx, machines[0].Name)
	if err != nil {
		return err
	}
	for _, refusal := range d.refusals() {
		d.r.check("refused: "+refusal.name, func() (string, error) {
			if err := d.markAudit(); err != nil {
				return "", err
			}
			said, err := refusal.try(ctx)
			if err != nil {
				return "", err
			}
			if err := d.awaitReason(ctx, refusal.reason); err != nil {
				return "", err
			}
			return fmt.Sprintf("audit: %s; the client: %s", refusal.reason, said), nil
		})
	}
	leave()
	d.r.check("audit log: unbroken chain, one closing record a login", func() (string, error) { return d.awaitAudit(ctx) })
	return nil
}

// stayIn opens a session on a server and keeps it until leave is called.
func (d *demo) stayIn(ctx context.Context, server string) (leave func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := d.sshCommand(ctx, engineer, server, "echo in; exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := d.e.lab.Client.Start(cmd); err != nil {
		cancel()
		return nil, fmt.Errorf("opening a session that stays: %w", err)
	}
	leave = func() {
		stdin.Close()
		if cmd.Wait() != nil {
			d.say("the session that stayed did not end by itself")
		}
		cancel()
	}
	word := make([]byte, len("in\n"))
	if _, err := io.ReadFull(stdout, word); err != nil {
		cancel()
		leave()
		return nil, fmt.Errorf("opening a session that stays: %w", err)
	}
	return leave, nil
}

type refusal struct {
	name, reason string
	try          func(context.Context) (string, error)
}

func (d *demo) refusals() []refusal {
	at := netip.AddrPortFrom(netlab.Bastion, bastionPort).String()
	ssh := func(agent string, args ...string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) { return d.refusedLogin(ctx, agent, args...) }
	}
	all := []refusal{
		{"an address off the list", "dropped_by_filter", func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, silentLimit)
			defer cancel()
			conn, err := d.e.lab.Client.DialContext(ctx, "tcp", at, netlab.OffList)
			if err == nil {
				conn.Close()
				return "", errors.New("the connection was made")
			}
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				return "", fmt.Errorf("the SYN got an answer: %w", err)
			}
			return fmt.Sprintf("no answer to its SYN in %s", silentLimit), nil
		}},
		{"a client without a key", "no_key", ssh("", "-o", "IdentityFile=none", "-o", "IdentitiesOnly=yes", bastionName, "-W", "se-1:22")},
		{"a password", "method_password", func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, sshLimit)
			defer cancel()
			conn, err := d.e.lab.Client.DialContext(ctx, "tcp", at, netlab.Engineer)
			if err != nil {
				return "", err
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(sshLimit)); err != nil {
				return "", err
			}
			client, err := rawssh.Handshake(conn, rawssh.Offer{})
			if err != nil {
				return "", err
			}
			if err := client.Service(); err != nil {
				return "", err
			}
			reply, err := client.Password(engineer, "correct horse battery staple")
			if err != nil {
				return "disconnected: " + err.Error(), nil
			}
			if reply.Success {
				return "", errors.New("the password was taken")
			}
			return "may go on with " + strings.Join(reply.Methods, ","), nil
		}},
		{"user root", "user_root", ssh(engineer, "-l", "root", bastionName, "-W", "se-1:22")},
		{"a plain software key", "key_not_hardware", ssh("", "-o", "IdentitiesOnly=yes", "-i", d.e.path("keys", stranger), bastionName, "-W", "se-1:22")},
		{"a security key without a touch", "key_no_touch", ssh("untouched", "-l", colleague, bastionName, "-W", "nl-1:22")},
		{"a server not granted", "target_not_granted", ssh(colleague, "-l", colleague, bastionName, "-W", "se-1:22")},
		{"a port not granted", "port_not_granted", ssh(engineer, bastionName, "-W", "se-1:80")},
	}
	if d.e.hasCards() {
		all = append(all, refusal{"a card that nobody touches", "no_key", d.untouched})
	}
	return all
}

// refusedLogin has ssh fail, and returns its last words.
func (d *demo) refusedLogin(ctx context.Context, agent string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sshLimit)
	defer cancel()
	_, err := outputOf(d.sshCommand(ctx, agent, args...), d.e.lab.Client.Start)
	var f *failure
	if !errors.As(err, &f) || f.code != 255 {
		return "", fmt.Errorf("ssh: got exit %d, want 255: %w", exitCode(err), orDone(err))
	}
	return lastLine(f.said), nil
}

// hostCA sees that ssh was given nothing to believe but the CA, and that a host without its certificate is not believed.
func (d *demo) hostCA(ctx context.Context) (string, error) {
	known, err := os.ReadFile(d.e.fleet("public", "known_hosts"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(known)) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "@cert-authority ") && !strings.HasPrefix(line, "#") {
			return "", fmt.Errorf("known_hosts holds a plain key: %q", line)
		}
	}
	// A client that knows another CA must not go on.
	other := d.e.path("ssh", "other_known_hosts")
	wrong, err := os.ReadFile(d.e.path("keys", "ana.pub"))
	if err != nil {
		return "", err
	}
	if err := d.write(other, append([]byte("@cert-authority * "), wrong...), 0o644); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, sshLimit)
	defer cancel()
	_, err = outputOf(d.sshCommand(ctx, engineer, "-o", "UserKnownHostsFile="+other, "-o", "GlobalKnownHostsFile=none", bastionName, "-W", "se-1:22"), d.e.lab.Client.Start)
	var f *failure
	if !errors.As(err, &f) || !strings.Contains(strings.ToLower(f.said), "host key verification failed") {
		return "", fmt.Errorf("a client with another CA: want host key verification to fail: %w", orDone(err))
	}
	return "known_hosts holds the CA only; a client with another CA refuses the bastion", nil
}

// inMemory sees that a server has no block device but the one its root is looped from, no swap, and no core dumps to anywhere.
func (d *demo) inMemory(ctx context.Context, server string) (string, error) {
	out, err := d.ssh(ctx, server, "", "ls /sys/block; echo --; cat /proc/swaps; echo --; cat /proc/sys/kernel/core_pattern; echo --; cat /proc/mounts")
	if err != nil {
		return "", err
	}
	parts := strings.Split(out, "--\n")
	if len(parts) != 4 {
		return "", fmt.Errorf("it said %q", out)
	}
	for _, device := range strings.Fields(parts[0]) {
		if !strings.HasPrefix(device, "loop") {
			return "", fmt.Errorf("it has block device %s", device)
		}
	}
	if lines := strings.Count(strings.TrimSpace(parts[1]), "\n"); lines > 0 {
		return "", fmt.Errorf("it has swap: %q", parts[1])
	}
	memory := map[string]bool{"tmpfs": true, "devtmpfs": true, "proc": true, "sysfs": true, "devpts": true, "rootfs": true, "ramfs": true, "cgroup2": true, "securityfs": true}
	root := ""
	for line := range strings.Lines(parts[3]) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		readOnly := strings.HasPrefix(f[3]+",", "ro,")
		if f[1] == "/" && f[2] != "rootfs" {
			root = f[2]
		}
		if !memory[f[2]] && !readOnly {
			return "", fmt.Errorf("%s is a writable %s", f[1], f[2])
		}
	}
	return fmt.Sprintf("root %s, read-only, core pattern %s", root, strings.TrimSpace(parts[2])), nil
}

// confined looks at the bounds of a session from inside, and asks from there for what the server itself booted from: the machine can
// reach it, a session must not.
func (d *demo) confined(ctx context.Context, server string) (string, error) {
	const sessions = "/sys/fs/cgroup/sessions"
	release := fmt.Sprintf("http://%s:%d/releases/%s/release.json", netlab.Controller, bootPort, releaseVersion)
	out, err := d.ssh(ctx, server, "", "cat /proc/self/cgroup "+sessions+"/memory.max "+sessions+"/pids.max; awk '/^Max processes/ { print $3 }' /proc/self/limits; stat -f -c %T /home/"+engineer+
		"; wget -q -T 3 -O - "+release+" >/dev/null 2>&1 && echo reached || echo closed")
	if err != nil {
		return "", err
	}
	got := strings.Fields(out)
	if len(got) != 6 {
		return "", fmt.Errorf("it said %q", out)
	}
	if want := "0::/sessions"; got[0] != want {
		return "", fmt.Errorf("control group %s, want %s", got[0], want)
	}
	for i, what := range []string{"bytes of memory", "processes of all", "processes of one"} {
		if n, err := strconv.ParseUint(got[1+i], 10, 64); err != nil || n == 0 {
			return "", fmt.Errorf("%s: %q is no bound", what, got[1+i])
		}
	}
	if got[4] != "tmpfs" || got[5] != "closed" {
		return "", fmt.Errorf("its home is a %s, the controller is %s", got[4], got[5])
	}
	outside, err := d.e.lab.Core.DialContext(ctx, "tcp", netip.AddrPortFrom(netlab.Controller, bootPort).String(), netlab.Controller)
	if err != nil {
		return "", fmt.Errorf("nothing listens where the session was to be refused: %w", err)
	}
	return fmt.Sprintf("%s bytes of memory, %s processes, %s of one engineer; the controller does not hear it", got[1], got[2], got[3]), outside.Close()
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
