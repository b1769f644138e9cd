package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/tunnel/checkin"
)

// publicLedger is a fleet's ledger with one witness.
type publicLedger struct {
	l       *lab
	key     ssh.Signer
	witness ssh.Signer
	dir     string
	log     *audit.Log
}

func (l *lab) ledger() *publicLedger {
	l.t.Helper()
	p := &publicLedger{l: l, key: newKey(l.t), witness: newKey(l.t), dir: filepath.Join(l.dir, "ledger")}
	signer, err := ledger.NewSigner("test", p.key)
	if err != nil {
		l.t.Fatal(err)
	}
	verifier, err := ledger.Verifier("test", trust.FormatKey(p.key.PublicKey()))
	if err != nil {
		l.t.Fatal(err)
	}
	if p.log, err = audit.Open(audit.Options{Dir: p.dir, Own: &audit.Own{Signer: signer, Verifier: verifier}}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := p.log.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return p
}

// config is client.json that knows the ledger.
func (p *publicLedger) config(require string) string {
	return p.l.clientConfig(func(c *checkin.ClientConfig) {
		c.Require = require
		c.Ledger = &checkin.Ledger{Keys: []string{trust.FormatKey(p.key.PublicKey())}, Threshold: 1,
			Witnesses: []checkin.Witness{{Name: "w", Keys: []string{trust.FormatKey(p.witness.PublicKey())}}}}
	})
}

// begin is a life of the server with the key that its certificate has.
func (p *publicLedger) begin(server, evidence string) ledger.Begin {
	p.l.t.Helper()
	base := filepath.Join(p.l.dir, server)
	pair, err := tls.LoadX509KeyPair(filepath.Join(base, "tls.pem"), filepath.Join(base, "tls.key"))
	if err != nil {
		p.l.t.Fatal(err)
	}
	hash := sha256.Sum256(pair.Leaf.PublicKey.(ed25519.PublicKey))
	began := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	return ledger.Begin{Kind: ledger.Kind, Server: server, Epoch: 1, Release: 7, ReleaseSHA256: strings.Repeat("ab", 32), Began: began,
		Deadline: began.Add(24 * time.Hour), Evidence: evidence, TLSKey: hex.EncodeToString(hash[:]), HostKey: strings.Repeat("cd", 32)}
}

// show logs a life and gives the server the proof, as mayfly-init does.
func (p *publicLedger) show(server string, b ledger.Begin, cosigned bool) {
	t := p.l.t
	t.Helper()
	index, err := p.log.AppendIndexed(ledger.EventBegin, b)
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(patience); p.log.Checkpoint().Size <= index; <-time.After(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the log signs nothing")
		}
	}
	proof, err := audit.Prove(p.dir, index)
	if err != nil {
		t.Fatal(err)
	}
	if cosigned {
		text, _, _ := strings.Cut(string(proof.Checkpoint), "\n\n")
		line, err := witness.Cosign(p.witness, "w", text+"\n", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		proof.Checkpoint = append(proof.Checkpoint, line...)
	}
	p.l.write(filepath.Join(p.l.dir, server, "life"), proof.Marshal())
}

// TestRequire: a client that asks for a server's life takes none that does not show it; one that does not ask takes any.
func TestRequire(t *testing.T) {
	l := newLab(t)
	book := l.ledger()
	l.server("srv1", "10.64.1.0/24")
	l.publish(nil, entry("srv1", false))
	attested := book.begin("srv1", ledger.Attested)
	other := attested
	other.TLSKey = strings.Repeat("ef", 32)
	over := attested
	over.Deadline = time.Now().Add(-time.Second).UTC().Truncate(time.Second)
	life := filepath.Join(l.dir, "srv1", "life")
	for _, c := range []struct {
		name, require string
		show          func()
		want          string
	}{
		{"nothing asked and nothing shown", "", func() {}, ""},
		{"nothing shown", ledger.RequireLogged, func() {}, ledger.NotLogged},
		{"rubbish shown", ledger.RequireLogged, func() { l.write(life, []byte("rubbish")) }, ledger.NotLogged},
		{"too much shown", ledger.RequireLogged, func() { l.write(life, make([]byte, 1<<20)) }, ledger.NotLogged},
		{"another key's life", ledger.RequireLogged, func() { book.show("srv1", other, true) }, ledger.NotLogged},
		{"seen by no witness", ledger.RequireLogged, func() { book.show("srv1", attested, false) }, ledger.NotLogged},
		{"over", ledger.RequireLogged, func() { book.show("srv1", over, true) }, ledger.LifeOver},
		{"claimed, attested asked", ledger.RequireAttested, func() { book.show("srv1", book.begin("srv1", ledger.Claimed), true) }, ledger.NotAttested},
		{"claimed, logged asked", ledger.RequireLogged, func() { book.show("srv1", book.begin("srv1", ledger.Claimed), true) }, ""},
		{"attested", ledger.RequireAttested, func() { book.show("srv1", attested, true) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.Remove(life); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			c.show()
			args := []string{"register", "--config", book.config(""), "--out", filepath.Join(l.dir, "wg.conf"), "-o", "json"}
			if c.require != "" {
				args = append(args, "--require", c.require)
			}
			cmd := l.command("cli1", args...)
			out, err := cmd.CombinedOutput()
			if c.want == "" {
				if err != nil {
					t.Fatalf("got %v: %s", err, out)
				}
				return
			}
			if code := cmd.ProcessState.ExitCode(); code != command.Refused || !strings.Contains(string(out), c.want) {
				t.Errorf("got exit code %d, %s; want %s", code, out, c.want)
			}
		})
	}

	// client.json asks, the client comes up, and says why it does not go on to a server that shows nothing.
	cli := l.start("cli1", "client", "--config", book.config(ledger.RequireAttested), "--route", "203.0.113.0/24")
	if up := cli.event("up"); up.Server != "srv1" {
		t.Errorf("up: got %+v", up)
	}
	l.server("srv2", "10.64.2.0/24")
	l.publish(nil, entry("srv1", true), entry("srv2", false))
	if waiting := cli.event("waiting"); waiting.Reason != ledger.NotLogged {
		t.Errorf("a server that shows nothing: got %+v, want %s", waiting, ledger.NotLogged)
	}
	book.show("srv2", book.begin("srv2", ledger.Attested), true)
	if moved := cli.event("moved"); moved.Server != "srv2" {
		t.Errorf("moved: got %+v", moved)
	}
	if code := cli.stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestRequireUsage: what is asked for has to be a word that means something, and keys to believe it by.
func TestRequireUsage(t *testing.T) {
	l := newLab(t)
	book := l.ledger()
	without := l.clientConfig(nil)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a word that is none", []string{"--config", book.config(""), "--require", "much"}, command.Usage, "logged or attested"},
		{"no ledger in client.json", []string{"--config", without, "--require", "attested"}, command.Failed, "ledger has no keys"},
	} {
		cmd := l.command("cli1", append([]string{"register", "--out", filepath.Join(l.dir, "wg.conf")}, c.args...)...)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: got %v, %s", c.name, err, out)
		}
	}
	for name, change := range map[string]func(*checkin.ClientConfig){
		"threshold":   func(c *checkin.ClientConfig) { c.Ledger = &checkin.Ledger{Threshold: 1} },
		"key":         func(c *checkin.ClientConfig) { c.Ledger = &checkin.Ledger{Keys: []string{"hello"}} },
		"requirement": func(c *checkin.ClientConfig) { c.Require = "much" },
	} {
		config := l.config
		change(&config)
		data, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := config.CheckRequire(); err == nil {
			t.Errorf("%s: got no error for %s", name, data)
		}
	}
}
