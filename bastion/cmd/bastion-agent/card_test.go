//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
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
	"mayfly/testenv/pcscd"
	"mayfly/testenv/pivcard"
)

// patience is for what must happen.
const patience = 60 * time.Second

// lab is the real pcscd with virtual cards, and this program built with the tag.
type lab struct {
	t      *testing.T
	ctx    context.Context
	daemon *pcscd.Daemon
	issuer *pivcard.Issuer
	dir    string
	bin    string
	pulls  []func()
}

// builtProgram builds bastion-agent with cards, once.
func builtProgram(t *testing.T) string {
	t.Helper()
	if missing := debian.Missing(cgobuild.Needs(cgobuild.PCSC)); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "bastion-agent-"); built.err != nil {
			return
		}
		built.bin = filepath.Join(built.dir, "bastion-agent")
		built.err = cgobuild.Build(context.Background(), "../../..", built.bin, "./bastion/cmd/bastion-agent", cgobuild.PCSC)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.bin
}

func newLab(t *testing.T, readers int) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	if missing := debian.Missing(pcscd.Needs); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	l := &lab{t: t, bin: builtProgram(t), pulls: make([]func(), readers)}
	var err error
	if l.dir, err = os.MkdirTemp("", "cards-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(l.dir); err != nil {
			t.Error(err)
		}
	})
	var cancel context.CancelFunc
	l.ctx, cancel = context.WithTimeout(t.Context(), 8*patience)
	t.Cleanup(cancel)
	if l.daemon, err = pcscd.Start(l.ctx, pcscd.Place{Dir: l.dir, Readers: readers}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.daemon.Close(); err != nil {
			t.Error(err)
		}
	})
	if l.issuer, err = testIssuer(); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*pivcard.Authority{l.issuer.PIV, l.issuer.PIVRoot} {
		l.write(a.Certificate.Subject.CommonName+".pem", a.PEM(), 0o644)
	}
	return l
}

// testIssuer is one for all tests: its RSA keys take a while.
var testIssuer = sync.OnceValues(pivcard.NewIssuer)

func (l *lab) write(name string, data []byte, mode os.FileMode) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, data, mode); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// card is a new card in a reader, which touches itself.
func (l *lab) card(reader int, c pivcard.Config) *pivcard.Card {
	l.t.Helper()
	c.Issuer = l.issuer
	card, err := pivcard.New(c)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := card.Touch.SetMode(pivcard.TouchAuto); err != nil {
		l.t.Fatal(err)
	}
	l.insert(reader, card.Serve)
	return card
}

// insert puts something in a reader that speaks as a card does.
func (l *lab) insert(reader int, serve func(context.Context, net.Conn) error) {
	l.t.Helper()
	conn, err := l.daemon.Dial(l.ctx, reader)
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(l.ctx, conn) // ends with the connection, in whatever way
	}()
	l.pulls[reader] = sync.OnceFunc(func() {
		conn.Close()
		<-done
	})
	l.t.Cleanup(l.pulls[reader])
	if err := l.daemon.AwaitCard(l.ctx, reader); err != nil {
		l.t.Fatalf("%v\n%s", err, l.daemon.Log())
	}
}

// pull takes the card out.
func (l *lab) pull(reader int) {
	l.t.Helper()
	before, err := l.daemon.State(l.ctx, reader)
	if err != nil {
		l.t.Fatal(err)
	}
	l.pulls[reader]()
	if err := l.daemon.AwaitRemoval(l.ctx, reader, before); err != nil {
		l.t.Fatal(err)
	}
}

// issuers are the flags that have virtual cards believed.
func (l *lab) issuers() []string {
	var flags []string
	for _, a := range []*pivcard.Authority{l.issuer.PIV, l.issuer.PIVRoot} {
		flags = append(flags, "--test-issuer", filepath.Join(l.dir, a.Certificate.Subject.CommonName+".pem"))
	}
	return flags
}

// command is the program, which finds the cards of the lab.
func (l *lab) command(args ...string) *exec.Cmd { return l.daemon.Command(l.ctx, l.bin, args...) }

// run runs it to its end, and returns what it said and its exit code.
func (l *lab) run(args ...string) (stdout, stderr string, code int) {
	l.t.Helper()
	cmd := l.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatalf("%q: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// want runs it, and wants an exit code and words in what it says.
func (l *lab) want(code int, words []string, args ...string) string {
	l.t.Helper()
	stdout, stderr, got := l.run(args...)
	if got != code {
		l.t.Fatalf("%q: got exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	for _, w := range words {
		if !strings.Contains(stdout+stderr, w) {
			l.t.Errorf("%q: does not say %q:\n%s%s", args, w, stdout, stderr)
		}
	}
	return stdout
}

// setUp is what makes a card ready, in a script.
func (l *lab) setUp(more ...string) []string {
	l.t.Helper()
	args := append([]string{"setup", "--yes", "--pin-file", l.write("pin", []byte(goodPIN+"\n"), 0o600), "--puk-file", l.write("puk", []byte(goodPUK+"\n"), 0o600)}, l.issuers()...)
	return append(args, more...)
}

// TestSetupEnrollKeysDoctor goes the whole way with one card, through the real daemon and the real library.
func TestSetupEnrollKeysDoctor(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	l.want(1, []string{"the PIN is the factory's", "the PUK is the factory's", "the management key is the factory's", "no key that a fleet would take"}, "doctor")
	public := l.want(0, []string{"gets a new PIN with 5 tries and a new PUK with 3", "After 5 wrong PINs", "gone for good", "TEST issuer", "the key is made"}, l.setUp()...)
	if !strings.HasPrefix(public, "ecdsa-sha2-nistp256 ") {
		t.Errorf("setup: got %q, want a P-256 key", public)
	}
	l.want(0, []string{"touch always", "PIN once", "generated", strings.TrimSpace(public)}, "keys")
	l.want(0, []string{"failing: 0, warnings: 0"}, "doctor")
	l.want(3, []string{"there is a key in slot 9a", "--destroy-key-in-slot-9a"}, l.setUp()...)

	request := filepath.Join(l.dir, "request.json")
	enroll := []string{"enroll", "--challenge", l.challenge(), "--out", request, "--pin-file", filepath.Join(l.dir, "pin")}
	l.want(3, []string{"attestation_chain"}, enroll...)
	if _, err := os.Stat(request); err == nil {
		t.Error("a refused request was written")
	}
	l.want(0, []string{"fleet test enrols the key in slot 9a", "for anna", "proved: made on card " + fmt.Sprint(card.Serial())}, append(enroll, l.issuers()...)...)
	if _, err := os.Stat(request); err != nil {
		t.Error(err)
	}
}
