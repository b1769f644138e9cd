package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/testenv/cgobuild"
	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
	"mayfly/testenv/pcscd"
	"mayfly/testenv/pivcard"
)

// Secrets of the virtual cards of TestHardwareKeys.
const (
	hardwarePIN = "824613"
	hardwarePUK = "46813570"
)

// hardwareFleet is a bastion and one host that nobody rebuilds.
const hardwareFleet = `name = "office"
test = true
domain = "office.internal"

[[bastion]]
name = "gate"
address = "10.77.0.2"
port = 2222

[[server]]
name = "web-1"
role = "host"
address = "203.0.113.10/32"
host_keys = ["%s"]
`

// hardwarePolicy is followed by the test issuers.
const hardwarePolicy = `version = 1
expires = 2126-12-31T00:00:00Z

[ssh]
level = "pq-preferred"
allow = ["198.51.100.0/24"]

[[engineer]]
name = "anna"

[[grant]]
engineers = ["anna"]
servers = ["web-1"]
ports = [22]

[hardware]
`

// hardware is people with virtual cards in the real pcscd's readers, a bastion in the lab's core, and a host in its target.
type hardware struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	lab    netlab.Lab
	daemon *pcscd.Daemon
	issuer *pivcard.Issuer
	cards  map[string]*heldCard
	signed heard // what bastion-agent logs
	sshd   heard
	log    heard // the bastion's
	agent  func()
}

// heldCard is a person's card in its reader.
type heldCard struct {
	*pivcard.Card
	reader int
	pull   func()
}

func newHardware(t *testing.T) *hardware {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	if missing := debian.Missing(append(cgobuild.Needs(cgobuild.PCSC), pcscd.Needs...)); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "mf-hw-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	h := &hardware{t: t, ctx: ctx, dir: dir, lab: netlab.Of(dir), cards: map[string]*heldCard{}}
	if err := h.lab.Create(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.lab.Remove(); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "../bastion/cmd/bastion", "../fleetctl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := cgobuild.Build(ctx, "..", filepath.Join(dir, "bastion-agent"), "./bastion/cmd/bastion-agent", cgobuild.PCSC); err != nil {
		t.Fatal(err)
	}
	if h.daemon, err = pcscd.Start(ctx, pcscd.Place{Dir: filepath.Join(dir, "pcscd"), Readers: 4}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.daemon.Close(); err != nil {
			t.Error(err)
		}
	})
	if h.issuer, err = pivcard.NewIssuer(); err != nil {
		t.Fatal(err)
	}
	for i, a := range []*pivcard.Authority{h.issuer.PIV, h.issuer.PIVRoot} {
		h.write(fmt.Sprintf("issuer-%d.pem", i), string(a.PEM()), 0o644)
	}
	h.write("pin", hardwarePIN+"\n", 0o600)
	h.write("puk", hardwarePUK+"\n", 0o600)
	h.write("askpass", "#!/bin/sh\ncat "+filepath.Join(dir, "typed")+"\n", 0o755)
	h.write("typed", hardwarePIN+"\n", 0o600)
	return h
}

func (h *hardware) path(name string) string { return filepath.Join(h.dir, name) }

func (h *hardware) write(name, text string, mode os.FileMode) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hardware) read(name string) string {
	h.t.Helper()
	data, err := os.ReadFile(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

// card puts a new card into a reader.
func (h *hardware) card(name string, reader int, c pivcard.Config) *heldCard {
	h.t.Helper()
	c.Issuer = h.issuer
	card, err := pivcard.New(c)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := card.Touch.SetMode(pivcard.TouchAuto); err != nil {
		h.t.Fatal(err)
	}
	held := &heldCard{Card: card, reader: reader}
	h.insert(held)
	h.cards[name] = held
	return held
}

func (h *hardware) insert(c *heldCard) {
	h.t.Helper()
	conn, err := h.daemon.Dial(h.ctx, c.reader)
	if err != nil {
		h.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Serve(h.ctx, conn) // ends with the connection, in whatever way
	}()
	c.pull = sync.OnceFunc(func() { conn.Close(); <-done })
	h.t.Cleanup(c.pull)
	if err := h.daemon.AwaitCard(h.ctx, c.reader); err != nil {
		h.t.Fatalf("%v\n%s", err, h.daemon.Log())
	}
}

// reader is the state of a card's reader, as the daemon sees it.
func (h *hardware) reader(c *heldCard) pcscd.State {
	h.t.Helper()
	states, err := h.daemon.States(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	return states[c.reader]
}

func (h *hardware) removed(c *heldCard, before pcscd.State) {
	h.t.Helper()
	if err := h.daemon.AwaitRemoval(h.ctx, c.reader, before); err != nil {
		h.t.Fatalf("%v\n%s", err, h.daemon.Log())
	}
}

func (h *hardware) remove(c *heldCard) {
	h.t.Helper()
	before := h.reader(c)
	c.pull()
	h.removed(c, before)
}

// command is one of our programs, which finds cards and the agent.
func (h *hardware) command(args ...string) *exec.Cmd {
	cmd := h.daemon.Command(h.ctx, h.path(args[0]), args[1:]...)
	cmd.Dir = h.dir
	cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+h.path("agent.sock"), "SSH_ASKPASS="+h.path("askpass"), "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:none")
	return cmd
}

// try runs one and returns all that it said, and its exit code.
func (h *hardware) try(args ...string) (string, int) {
	h.t.Helper()
	cmd := h.command(args...)
	var out heard
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, exit := err.(*exec.ExitError); err != nil && !exit {
		h.t.Fatalf("%q: %v", args, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// want runs one, and wants an exit code and words.
func (h *hardware) want(code int, words string, args ...string) string {
	h.t.Helper()
	out, got := h.try(args...)
	if got != code || !strings.Contains(out, words) {
		h.t.Fatalf("%q: exit code %d, want %d and %q\n%s", args, got, code, words, out)
	}
	return out
}

func (h *hardware) setup(name, kind string, more ...string) {
	h.t.Helper()
	h.want(0, "", append([]string{"bastion-agent", "setup", "--yes", "--type", kind, "--serial", fmt.Sprint(h.cards[name].Serial()), "--pin-file", "pin", "--puk-file", "puk",
		"--test-issuer", "issuer-0.pem", "--test-issuer", "issuer-1.pem"}, more...)...)
}

// enroll has a card answer a new challenge for a person, and returns the file of the request.
func (h *hardware) enroll(person, card string, more ...string) string {
	h.t.Helper()
	file := fmt.Sprintf("%s-%s.json", person, card)
	os.Remove(h.path(file))
	h.want(0, "", "fleetctl", "key", "challenge", person, "--dir", "office", "-o", file+".challenge")
	h.want(0, "", append([]string{"bastion-agent", "enroll", "--challenge", file + ".challenge", "--serial", fmt.Sprint(h.cards[card].Serial()), "--pin-file", "pin", "--out", file,
		"--write-refused", "--test-issuer", "issuer-0.pem", "--test-issuer", "issuer-1.pem"}, more...)...)
	return file
}

// public writes the public key of a request where ssh looks for it.
func (h *hardware) public(request, name string) string {
	h.t.Helper()
	var r struct{ Public string }
	if err := json.Unmarshal([]byte(h.read(request)), &r); err != nil || r.Public == "" {
		h.t.Fatalf("%s: %v", request, err)
	}
	h.write(name+".pub", r.Public+"\n", 0o644)
	return r.Public
}

// background runs a program until stop, or the end of the test.
func (h *hardware) background(cmd *exec.Cmd, said *heard, start func(*exec.Cmd) error) (stop func()) {
	h.t.Helper()
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := start(cmd); err != nil {
		h.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		_ = cmd.Wait()
	})
	h.t.Cleanup(stop)
	return stop
}

func (h *hardware) until(what string, said fmt.Stringer, done func() bool) {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !done(); <-tick.C {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: never\n%s", what, said)
		}
	}
}

func (h *hardware) says(said *heard, text string) {
	h.t.Helper()
	h.until(text, said, func() bool { return strings.Contains(said.String(), text) })
}

// serveAgent starts the people's agent.
func (h *hardware) serveAgent(more ...string) {
	h.t.Helper()
	cmd := h.command(append([]string{"bastion-agent", "serve", "--socket", h.path("agent.sock"), "--pin", "askpass", "--notify", "none", "--require-binding", "--known-hosts", h.path("known_hosts")}, more...)...)
	h.agent = h.background(cmd, &h.signed, (*exec.Cmd).Start)
	h.says(&h.signed, "SSH_AUTH_SOCK=")
}

func (h *hardware) begin(cmd *exec.Cmd, said *heard, n netlab.Namespace, ready string) {
	h.t.Helper()
	h.background(cmd, said, n.Start)
	h.says(said, ready)
}

// fleet makes the ceremony, the policy with anna's key and everything that serves.
func (h *hardware) fleet() {
	t := h.t
	t.Helper()
	for _, d := range []string{"office", "host"} {
		if err := os.Mkdir(h.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"host/host_key", "gate_key"} {
		if out, err := exec.CommandContext(h.ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", h.path(key)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var issuers, rules strings.Builder
	for _, i := range h.issuer.DeviceIssuers() {
		fmt.Fprintf(&issuers, "[[hardware.test_issuer]]\nname = %q\napplet = %q\ncertificate = %q\n\n", i.Name, i.Applet, i.Certificate)
		fmt.Fprintf(&rules, "[[test_issuer]]\nname = %q\napplet = %q\ncertificate = %q\n\n", i.Name, i.Applet, i.Certificate)
	}
	h.write("office/fleet.toml", fmt.Sprintf(hardwareFleet, strings.Join(strings.Fields(h.read("host/host_key.pub"))[:2], " ")), 0o644)
	h.write("office/policy.toml", hardwarePolicy+issuers.String(), 0o644)
	h.write("rules.toml", rules.String(), 0o644)

	h.card("anna", 0, pivcard.Config{})
	h.setup("anna", "p256")
	h.card("ana", 1, pivcard.Config{})
	h.setup("ana", "p384")
	h.card("bo", 2, pivcard.Config{})
	h.setup("bo", "ed25519")
	h.public(h.enroll("ana", "ana"), "ana")
	h.public(h.enroll("bo", "bo"), "bo")
	h.want(0, "trust policy of fleet office: 2 of 2 people", "fleetctl", "init", "--dir", "office", "--approver", "ana=ana-ana.json", "--approver", "bo=bo-bo.json", "--hardware", "rules.toml")
	request := h.enroll("anna", "anna")
	h.public(request, "anna")
	h.want(0, "touch", "fleetctl", "key", "add", request, "--dir", "office")

	h.write("known_hosts", "", 0o644)
	h.serveAgent()
	h.want(0, "", "fleetctl", "policy", "bundle", "--dir", "office")
	h.approve()
}

// approve is both approvers' signatures, each a touch of the card's.
func (h *hardware) approve() {
	h.t.Helper()
	for _, name := range []string{"ana", "bo"} {
		before := h.cards[name].Show().Signatures
		h.want(0, "", "fleetctl", "policy", "sign", "--dir", "office", "--key", name+".pub")
		if got := h.cards[name].Show().Signatures - before; got != 1 {
			h.t.Errorf("%s's card signed %d times", name, got)
		}
	}
}

func (h *hardware) serve() {
	t := h.t
	t.Helper()
	signer := new(heard)
	h.background(h.command("fleetctl", "signer", "--dir", "office"), signer, (*exec.Cmd).Start)
	h.want(0, "", "fleetctl", "certify", "--dir", "office", "--wait", "60s", "--key", "gate_key.pub")
	h.write("bastion.toml", fmt.Sprintf("listen = %q\ntrust = %q\nbundle = %q\nhost_key = %q\nhost_certificate = %q\naudit = %q\n", net.JoinHostPort(netlab.Bastion.String(), "2222"),
		h.path("office/trust.json"), h.path("office/bundle.json"), h.path("gate_key"), h.path("gate_key-cert.pub"), h.path("audit")), 0o644)
	h.begin(h.command("bastion", "serve", "--config", h.path("bastion.toml")), &h.log, h.lab.Core, "ready on")
	h.write("host/authorized_keys", fmt.Sprintf("from=%q,restrict,pty %s", netlab.Bastion, h.read("anna.pub")), 0o644)
	h.write("host/sshd_config", fmt.Sprintf("ListenAddress %s\nHostKey /run/keys/host_key\nAuthorizedKeysFile /run/keys/authorized_keys\nUsePAM no\nPidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n",
		net.JoinHostPort(netlab.WebTarget.String(), "22")), 0o644)
	cmd := exec.CommandContext(h.ctx, "unshare", "--mount", "sh", "-c", strings.ReplaceAll(aloneSSHD, "alice", "anna"), "sh", h.path("host"))
	h.begin(cmd, &h.sshd, h.lab.Target, "Server listening")
	h.want(0, "", "fleetctl", "ssh-config", "--dir", "office", "--user", "anna", "--identity", h.path("anna.pub"), "--known-hosts", "known_hosts", "--known-hosts-at", h.path("known_hosts"), "-o", "ssh.conf")
}

// ssh logs in at web-1 through the bastion, as an engineer does.
func (h *hardware) ssh() (string, error) {
	h.t.Helper()
	cmd := h.command("ssh")
	cmd.Path, cmd.Err = "/usr/bin/ssh", nil
	cmd.Args = []string{"ssh", "-F", h.path("ssh.conf"), "-o", "BatchMode=yes", "web-1", "echo one day"}
	var out heard
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.lab.Client.Start(cmd); err != nil {
		h.t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err
}

// list is what the agent holds.
func (h *hardware) list() (string, error) {
	cmd := exec.CommandContext(h.ctx, "ssh-add", "-L")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+h.path("agent.sock"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// records are the bastion's closing records.
func (h *hardware) records() []map[string]any {
	h.t.Helper()
	cmd := h.command("bastion", "audit", "tail", "--dir", "audit", "-n", "1000", "--event", "connection")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		h.t.Fatalf("%v: %s", err, said.String())
	}
	var all []map[string]any
	for d := json.NewDecoder(&out); d.More(); {
		var r map[string]any
		if err := d.Decode(&r); err != nil {
			h.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}
