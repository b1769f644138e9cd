package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/testenv/debian"
	"mayfly/testenv/supervise"
)

// demoNeeds are the tools that demo and up use on this machine.
var demoNeeds = []debian.Need{
	{Name: "qemu-system-x86_64", Package: "qemu-system-x86"},
	{Name: "ssh", Package: "openssh-client"},
	{Name: "ssh-keygen", Package: "openssh-client"},
	{Name: "wg", Package: "wireguard-tools"},
	{Name: "wg-quick", Package: "wireguard-tools"},
	{Name: "ip", Package: "iproute2"},
	{Name: "sysctl", Package: "procps"},
	{Name: "nft", Package: "nftables"},
	{Name: "/etc/ssl/certs/ca-certificates.crt", Package: "ca-certificates"},
}

var demoVerb = command.Verb{
	Name:    "demo",
	Args:    "[-o table|json] [--keep]",
	Summary: "the main job: build, sign, boot, log in, carry traffic, rebuild every server, report",
	Help: `Brings up a whole fleet on this machine, logs in through the bastion, carries VPN traffic, wipes and rebuilds every server under
traffic, and says what held. Exit 0 only if every check passed. At the end everything that it made is taken away.

Example:

  go run ./testenv demo -o json`,
	Run: runDemo,
}

// demo is one run from image to report.
type demo struct {
	e *environment
	r *report
	c *command.Call

	agents   map[string]*supervise.Process
	canaries map[string][]canary // by server
	before   map[string]identity // of each server before it was rebuilt
	audit    uint64              // records of the audit log when the current check began
	refused  int                 // counts of refusals then
}

func runDemo(ctx context.Context, c *command.Call) (err error) {
	fs := c.Flags()
	output := fs.String("o", "table", "`form` of the report: table or json")
	keep := fs.Bool("keep", false, "leave everything running at the end, failed or not; down takes it away")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 || (*output != "table" && *output != "json") {
		return command.Usagef("demo takes -o table or -o json, and --keep")
	}
	ctx, cancel := lifeline(ctx, c.Stdin)
	defer cancel()
	began := time.Now()
	e, done, err := open(ctx, c, "demo", demoNeeds, cardNeeds)
	if done || err != nil {
		return err
	}
	defer e.release()
	defer e.giveCaches(ctx)
	if e.isUp() {
		return hint.New(errors.New("an environment is up already"), "go run ./testenv down")
	}
	d := newDemo(e, c)
	defer func() {
		if *keep && ctx.Err() == nil {
			err = errors.Join(err, e.markUp())
			return
		}
		d.say("ending everything that was started …")
		_, removeErr := e.remove()
		err = errors.Join(err, removeErr)
	}()
	for _, s := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"image", d.image}, {"trust", d.trust}, {"up", d.up}, {"login", d.login}, {"tunnel", d.tunnel}, {"rotate", d.rotate}, {"forget", d.forget},
	} {
		if err := d.step(ctx, s.name, s.run); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("step %s: %w", s.name, context.Cause(ctx))
			}
			d.r.add("step "+s.name, "", err, 0) // the rest needs this step: report what there is
			break
		}
	}
	d.say("report: %s in all", took(began))
	if *output == "json" {
		err = d.r.printJSON(c.Stdout)
	} else {
		err = d.r.printTable(c.Stdout)
	}
	if err != nil {
		return fmt.Errorf("printing the report: %w", err)
	}
	if !d.r.good() {
		return errors.New("not every check passed")
	}
	return nil
}

func newDemo(e *environment, c *command.Call) *demo {
	return &demo{
		e: e, c: c, r: &report{Servers: len(machines), talk: c.Stderr},
		agents: map[string]*supervise.Process{}, canaries: map[string][]canary{}, before: map[string]identity{},
	}
}

// open finds the environment, gets what the verb needs, takes the environment and sweeps what a killed run left.
func open(ctx context.Context, c *command.Call, verb string, needs, wanted []debian.Need) (e *environment, done bool, err error) {
	e, err = newEnvironment()
	if err != nil {
		return nil, true, err
	}
	if done, err = e.asRoot(ctx, c, verb, needs, wanted); done || err != nil {
		return nil, done, err
	}
	if err := e.take(); err != nil {
		return nil, true, err
	}
	swept, err := e.sweep()
	if err != nil {
		e.release()
		return nil, true, fmt.Errorf("taking away what a killed run left: %w", err)
	}
	if swept {
		fmt.Fprintln(c.Stderr, "testenv: took away what a killed run had left")
	}
	return e, false, nil
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.c.Stderr, "demo: "+format+"\n", args...)
}

// step runs a step between two lines.
func (d *demo) step(ctx context.Context, name string, run func(context.Context) error) error {
	began := time.Now()
	d.say("%s …", name)
	before, passed := len(d.r.Checks), d.r.passed()
	err := run(ctx)
	if err == nil {
		err = ctx.Err()
	}
	result := "done"
	if err != nil {
		result = "failed: " + oneLine(err.Error())
	}
	d.say("%s %s: %d of %d checks passed, %s", name, result, d.r.passed()-passed, len(d.r.Checks)-before, took(began))
	return err
}

// must is a check that the rest of the step needs.
func (d *demo) must(name string, f func() (string, error)) error {
	if !d.r.check(name, f) {
		return fmt.Errorf("check %q failed", name)
	}
	return nil
}

// fleetctl runs the operator's command on the fleet's directory, inside core, where the servers' taps and the controller are.
func (d *demo) fleetctl(ctx context.Context, args ...string) (string, error) {
	cmd := d.e.command(ctx, d.e.bin("fleetctl"), args...)
	cmd.Dir = d.e.fleet()
	if d.e.hasCards() {
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+d.e.cardSocket())
	}
	return outputOf(cmd, d.e.lab.Core.Start)
}

// refusedBy runs the operator's command and wants exit code 3.
func (d *demo) refusedBy(ctx context.Context, args ...string) (string, error) {
	_, err := d.fleetctl(ctx, args...)
	var f *failure
	if !errors.As(err, &f) || f.code != command.Refused {
		return "", fmt.Errorf("fleetctl %s: got exit %d, want %d: %w", args[0], exitCode(err), command.Refused, orDone(err))
	}
	return errorLine(f.said), nil
}

func orDone(err error) error {
	if err == nil {
		return errors.New("it did what it was asked")
	}
	return err
}

// write writes a file of the environment.
func (d *demo) write(path string, data []byte, perm os.FileMode) error {
	if err := os.WriteFile(path, data, perm); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// errorLine is the line of a program's talk that says why it failed; its first line, if none does.
func errorLine(said string) string {
	lines := strings.Split(said, "\n")
	for _, l := range lines {
		if strings.Contains(l, "error:") {
			return l
		}
	}
	return lines[0]
}
