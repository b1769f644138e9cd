package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/testenv/netlab"
	"mayfly/testenv/supervise"
)

var upVerb = command.Verb{
	Name:    "up",
	Args:    "[--hosts machine|container [--engine docker|podman]] [--tpm]",
	Summary: "bring up a whole fleet and leave it running",
	Help: `Builds and signs an image, starts controller, bastion and three servers, and prints what to try. Repeated, it prints that again.
"testenv down" takes everything away.

--hosts container runs the servers as containers, from the very root that machines boot: read-only, with tmpfs, destroyed and made anew at each
rebuild. They start in a second, and prove nothing: their lives are unverified.

--tpm gives each machine UEFI firmware and a TPM, and asks for their proof: no server joins whose firmware and TPM do not show that it started
this release and nothing else. Their lives are attested.`,
	Run: runUp,
}

func runUp(ctx context.Context, c *command.Call) (err error) {
	fs := c.Flags()
	hosts := fs.String("hosts", hostsMachine, "what servers `run` as: machine (QEMU) or container")
	engineName := fs.String("engine", "", "container `engine`: docker (if not given) or podman")
	withTPM := fs.Bool("tpm", false, "machines have UEFI firmware and a TPM, and the policy asks for their proof")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return command.Usagef("up takes no arguments")
	}
	if *withTPM && *hosts != hostsMachine {
		return command.Usagef("--tpm goes with --hosts machine")
	}
	engine, err := engineOf(*hosts, *engineName)
	if err != nil {
		return err
	}
	ctx, cancel := lifeline(ctx, c.Stdin)
	defer cancel()
	e, done, err := open(ctx, c, "up", (&environment{engine: engine, tpm: *withTPM}).hostNeeds(), cardNeeds)
	if done || err != nil {
		return err
	}
	defer e.release()
	defer e.giveCaches(ctx)
	e.engine, e.tpm = engine, *withTPM
	if e.isUp() {
		_, noTPM := os.Stat(e.tpmFile())
		if up := e.remembered(); up != engine || (noTPM == nil) != e.tpm {
			return hint.New(errors.New("an environment with other hosts is up already"), "go run ./testenv down, and up again")
		}
		running, err := e.table.Running()
		if err != nil {
			return err
		}
		if len(running) > 0 {
			if err := e.whole(ctx, running); err != nil {
				return err
			}
			return e.printWhatToTry(c)
		}
		// The machine was restarted under it: nothing runs, and what was in memory is gone.
		if _, err := e.remove(); err != nil {
			return err
		}
		if err := e.take(); err != nil {
			return err
		}
	}
	d := newDemo(e, c)
	defer func() {
		if err != nil {
			d.say("ending everything that was started …")
			_, removeErr := e.remove()
			err = errors.Join(err, removeErr)
		}
	}()
	for _, s := range []struct {
		name string
		run  func(context.Context) error
	}{{"image", d.image}, {"trust", d.trust}, {"engine", d.startEngine}, {"up", d.up}, {"forward", d.forward}, {"page", d.page}} {
		if err := d.step(ctx, s.name, s.run); err != nil {
			return fmt.Errorf("step %s: %w", s.name, err)
		}
	}
	if d.r.passed() != len(d.r.Checks) {
		return errors.New("not every check passed")
	}
	if err := e.markUp(); err != nil {
		return err
	}
	return e.printWhatToTry(c)
}

// lasting is the programs that up starts and leaves running, beside the machines.
func (e *environment) lasting() []string {
	names := []string{"web", "dns", "signer", "serve", "checkin", "witness", "bastion", "agent-" + colleague, "agent-untouched", "forward", "forward-page"}
	if e.engine == inventory.EngineDocker {
		names = append(names, "dockerd")
	}
	if !e.hasCards() {
		return append(names, "agent-"+engineer)
	}
	names = append(names, "pcscd", "agent-cards")
	for _, name := range cardHolders {
		names = append(names, "card-"+name)
	}
	if _, err := os.Stat(e.ownSocket()); err == nil {
		names = append(names, "agent-own")
	}
	return names
}

// whole wants every program and every machine of an environment among those that run.
func (e *environment) whole(ctx context.Context, running []supervise.Record) error {
	records, err := e.table.Records()
	if err != nil {
		return err
	}
	var missing []string
	for _, name := range e.lasting() {
		if !slices.ContainsFunc(records, func(r supervise.Record) bool { return r.Name == name }) {
			missing = append(missing, name)
		}
	}
	if e.engine != "" {
		missing = append(missing, e.missingContainers(ctx)...)
	}
	for _, m := range machines {
		if e.engine == "" && !slices.ContainsFunc(running, func(r supervise.Record) bool { return m.isRunBy(r.Command) }) {
			missing = append(missing, "machine "+m.Name)
		}
	}
	if len(missing) > 0 {
		return hint.New(fmt.Errorf("only a part of the fleet is up; not running: %s", strings.Join(missing, ", ")),
			"%s has their last words; go run ./testenv down, and up again (a machine that is being rebuilt comes back by itself)", shorten(e.path("logs")))
	}
	return nil
}

// isRunBy tells whether a command line is this machine's.
func (m machine) isRunBy(command []string) bool {
	return strings.Contains(command[0], "qemu-system") && slices.ContainsFunc(command, func(arg string) bool {
		return strings.Contains(arg, "ifname="+m.Tap+",")
	})
}

// forward opens a loopback port of this machine that leads to the bastion, and writes an ssh_config for it.
func (d *demo) forward(ctx context.Context) error {
	e := d.e
	_, err := d.daemon(ctx, "forward", netlab.Namespace{}, ready, d.background(e.bin("testenv"), "part", "forward",
		"--to", netip.AddrPortFrom(netlab.Bastion, bastionPort).String(), "--namespace", e.lab.Client.Name, "--from", netlab.Engineer.String(),
		"--port-file", e.path("run", "forward")))
	if err != nil {
		return err
	}
	address, err := os.ReadFile(e.path("run", "forward"))
	if err != nil {
		return fmt.Errorf("reading the forwarder's port: %w", err)
	}
	socket := d.agentSocket(engineer)
	if e.hasCards() && e.owner.set {
		if socket, err = d.ownAgent(ctx); err != nil {
			return err
		}
	}
	// The config names the agent, so that the ssh line is short.
	args := []string{"ssh-config", "--user", engineer, "--bastion", string(address), "--agent", socket, "-o", e.sshConfig()}
	_, err = d.fleetctl(ctx, append(args, d.identity()...)...)
	return err
}

func (e *environment) sshConfig() string { return e.path("ssh_config") }

func (e *environment) printWhatToTry(c *command.Call) error {
	sudo := ""
	if e.owner.set {
		sudo = "sudo "
	}
	card := ""
	if e.hasCards() { // how often it was touched; "mode refused" in place of "show" takes the finger away
		card = fmt.Sprintf("  %s%s pivcard show --control %s\n", sudo, shorten(e.bin("testenv")), shorten(e.cardsOf(len(cardHolders)).control(engineer)))
	}
	_, err := fmt.Fprintf(c.Stdout, `The fleet is up. Try:

  ssh -F %[1]s/ssh_config se-1
  %[2]s%[1]s/bin/fleetctl status --dir %[1]s/fleet
%[7]s  %[2]s%[3]s %[1]s/bin/fleetctl rotate --all --dir %[1]s/fleet
  %[2]s%[4]s %[1]s/bin/tunnel client --config %[1]s/fleet/public/client.json --route %[5]s --resolv-conf %[1]s/run/try-resolv.conf
%[6]s  go run ./testenv down
`, shorten(e.dir), sudo, e.within(e.lab.Core), e.within(e.lab.Client), netlab.Targets, card, e.pageToTry())
	return err
}

// within is what runs a program in a namespace. `ip netns exec` shows it another /sys, without the control groups that podman asks for.
func (e *environment) within(n netlab.Namespace) string {
	if e.engine == inventory.EnginePodman {
		return "nsenter --net=" + n.Path()
	}
	return "ip netns exec " + n.Name
}

// shorten is a path relative to the working directory, where that is below it.
func shorten(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if wd, err = filepath.EvalSymlinks(wd); err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}

var downVerb = command.Verb{
	Name:    "down",
	Summary: "end everything that up or demo started, and remove it",
	Help:    "Ends the programs, takes the network namespaces away and removes the state directory. Safe to repeat.",
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		if err := c.Parse(flags); err != nil {
			return err
		}
		if flags.NArg() > 0 {
			return command.Usagef("down takes no arguments")
		}
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		if _, err := os.Stat(e.dir); errors.Is(err, fs.ErrNotExist) && !e.anyNamespace() {
			fmt.Fprintln(c.Stdout, "nothing is up")
			return nil
		}
		if done, err := e.asRoot(ctx, c, "down", nil, nil); done || err != nil {
			return err
		}
		if err := e.take(); err != nil {
			return err
		}
		defer e.release()
		n, err := e.remove()
		if err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "down: %d programs ended\n", n)
		return nil
	},
}

func (e *environment) anyNamespace() bool {
	for _, n := range e.lab.Namespaces() {
		if n.Exists() {
			return true
		}
	}
	return false
}

var statusVerb = command.Verb{
	Name:    "status",
	Args:    "[-o table|json]",
	Summary: "say what of the environment runs",
	Help:    "It changes nothing. `fleetctl status` says how the servers are.",
	Run: func(_ context.Context, c *command.Call) error {
		flags := c.Flags()
		output := flags.String("o", "table", "`form`: table or json")
		if err := c.Parse(flags); err != nil {
			return err
		}
		if flags.NArg() > 0 || (*output != "table" && *output != "json") {
			return command.Usagef("status takes -o table or -o json")
		}
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		records, err := e.table.Records()
		if err != nil {
			return hint.New(err, "as root?")
		}
		type running struct {
			Name string `json:"name"`
			PID  int    `json:"pid"`
		}
		state := struct {
			Up       bool      `json:"up"`
			Network  bool      `json:"network"`
			Programs []running `json:"programs"`
		}{e.isUp(), e.anyNamespace(), []running{}}
		for _, r := range records {
			state.Programs = append(state.Programs, running{r.Name, r.PID})
		}
		if *output == "json" {
			return json.NewEncoder(c.Stdout).Encode(state)
		}
		if !state.Up && len(state.Programs) == 0 && !state.Network {
			_, err := fmt.Fprintln(c.Stdout, "nothing is up")
			return err
		}
		fmt.Fprintf(c.Stdout, "up: %v, network: %v\n", state.Up, state.Network)
		for _, p := range state.Programs {
			fmt.Fprintf(c.Stdout, "%-16s %d\n", p.Name, p.PID)
		}
		return nil
	},
}
