package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"mayfly/internal/sshsig"
)

// TestListAndSign: keys of all cards are listed in order, each signs, and each signature opened its card once and closed it.
func TestListAndSign(t *testing.T) {
	f := start(t, nil)
	one, two := f.cards.plug(t, 1), f.cards.plug(t, 2)
	a, _ := f.client()
	keys, err := a.List()
	if err != nil || len(keys) != 2 || keys[0].Comment != "test 1" || !bytes.Equal(keys[1].Blob, two.public().Marshal()) {
		t.Fatalf("got %v, %v", keys, err)
	}
	for _, card := range []*fakeCard{one, two} {
		data := fileData("git")
		sig, err := a.Sign(card.public(), data)
		if err != nil {
			t.Fatal(err)
		}
		if err := card.public().Verify(data, sig); err != nil {
			t.Error(err)
		}
		if card.opened != 2 || card.open != 0 { // read once, signed once
			t.Errorf("%s: opened %d times, %d open", card.info, card.opened, card.open)
		}
	}
	if reason, text := why(t, a); reason != "" || text != "" {
		t.Errorf("nothing was refused: got %s %s", reason, text)
	}
	f.log.wait(t, "signed", "sign a git commit or tag", "TEST card 2")
}

// TestOurSignatures: what fleetctl signs by an agent passes its own check.
func TestOurSignatures(t *testing.T) {
	f := start(t, func(c *Config) { c.RequireBinding, c.RefuseForwarded = true, true })
	f.cards.plug(t, 1)
	a, _ := f.client()
	signers, err := a.Signers()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sshsig.Sign(signers[0], "mayfly-policy", []byte("bundle")); err != nil {
		t.Fatal(err)
	}
	f.log.wait(t, "signed", "sign a mayfly-policy bundle")
}

// TestRefused is each refusal that what a client sends brings about: its reason, that a card was not asked, and that the connection goes on.
func TestRefused(t *testing.T) {
	host, other, ca := newHostKey(t), newHostKey(t), newHostKey(t)
	id := sessionID(1)
	revoked := writeKnownHosts(t, "@revoked * "+line(host.PublicKey()))
	add := func(t *testing.T, a sshagent.ExtendedAgent, _ ssh.PublicKey) error {
		return a.Add(sshagent.AddedKey{PrivateKey: mustKey(t)})
	}
	bind := func(contents []byte) func(*testing.T, sshagent.ExtendedAgent, ssh.PublicKey) error {
		return func(_ *testing.T, a sshagent.ExtendedAgent, _ ssh.PublicKey) error {
			_, err := a.Extension(extensionBind, contents)
			return err
		}
	}
	// sign binds, then asks for a signature.
	sign := func(data func(key ssh.PublicKey) []byte, binds ...[]byte) func(*testing.T, sshagent.ExtendedAgent, ssh.PublicKey) error {
		return func(t *testing.T, a sshagent.ExtendedAgent, key ssh.PublicKey) error {
			for _, b := range binds {
				if _, err := a.Extension(extensionBind, b); err != nil {
					t.Fatalf("binding: %v", err)
				}
			}
			_, err := a.Sign(key, data(key))
			return err
		}
	}
	login := func(id []byte, host ssh.PublicKey) func(ssh.PublicKey) []byte {
		return func(key ssh.PublicKey) []byte { return loginData(id, "anna", key, host) }
	}
	raw := func(data []byte) func(ssh.PublicKey) []byte { return func(ssh.PublicKey) []byte { return data } }
	good := bindContents(t, host.PublicKey(), host, id, false)
	for _, tt := range []struct {
		name   string
		config func(*Config)
		do     func(*testing.T, sshagent.ExtendedAgent, ssh.PublicKey) error
		reason Reason
		text   string
	}{
		{"add a key", nil, add, ReasonUnsupported, "keys are on cards"},
		{"remove a key", nil, func(_ *testing.T, a sshagent.ExtendedAgent, k ssh.PublicKey) error { return a.Remove(k) }, ReasonUnsupported, "taken out by hand"},
		{"remove all", nil, func(_ *testing.T, a sshagent.ExtendedAgent, _ ssh.PublicKey) error { return a.RemoveAll() }, ReasonUnsupported, "taken out by hand"},
		{"lock", nil, func(_ *testing.T, a sshagent.ExtendedAgent, _ ssh.PublicKey) error { return a.Lock([]byte("x")) }, ReasonUnsupported, "lock"},
		{"unlock", nil, func(_ *testing.T, a sshagent.ExtendedAgent, _ ssh.PublicKey) error { return a.Unlock([]byte("x")) }, ReasonUnsupported, "lock"},
		{"extension", nil, func(_ *testing.T, a sshagent.ExtendedAgent, _ ssh.PublicKey) error {
			_, err := a.Extension("x\n@y", nil)
			return err
		}, ReasonUnsupported, `\u000a`},
		{"bind: cut off", nil, bind(good[:len(good)-1]), ReasonBindMalformed, "forwarding flag"},
		{"bind: too long", nil, bind(append(slices.Clone(good), 0)), ReasonBindMalformed, "1 bytes too many"},
		{"bind: flag", nil, bind(append(slices.Clone(good[:len(good)-1]), 2)), ReasonBindMalformed, "boolean 2"},
		{"bind: short session", nil, bind(bindContents(t, host.PublicKey(), host, id[:16], false)), ReasonBindMalformed, "16 bytes"},
		{"bind: long session", nil, bind(bindContents(t, host.PublicKey(), host, make([]byte, 65), false)), ReasonBindMalformed, "65 bytes"},
		{"bind: other's signature", nil, bind(bindContents(t, host.PublicKey(), other, id, false)), ReasonBindSignature, "did not sign"},
		{"bind: no signature", nil, bind(append(appendString(appendString(appendString(nil, host.PublicKey().Marshal()), id), ""), 0)), ReasonBindMalformed, "signature: format"},
		{"bind: no key", nil, bind(append(appendString(appendString(appendString(nil, "x"), id), "y"), 0)), ReasonBindMalformed, "host key"},
		{"login: wrong session", nil, sign(login(sessionID(2), nil), good), ReasonWrongSession, "another session"},
		{"login: wrong host", nil, sign(login(id, other.PublicKey()), good), ReasonWrongSession, fingerprint(other.PublicKey())},
		{"login: another's key", nil, sign(raw(loginData(id, "anna", other.PublicKey(), nil)), good), ReasonWrongKey, fingerprint(other.PublicKey())},
		{"login: unbound", func(c *Config) { c.RequireBinding = true }, sign(login(id, nil)), ReasonUnbound, "anna"},
		{"login: unbound, with a host key", func(c *Config) { c.RequireBinding = true }, sign(login(id, host.PublicKey())), ReasonUnbound, "the client says"},
		{"login: unbound, agent forwarded", func(c *Config) { c.RequireBinding = true }, sign(login(id, nil), bindContents(t, host.PublicKey(), host, sessionID(3), true)), ReasonUnbound, "anna"},
		{"login: forwarded", func(c *Config) { c.RefuseForwarded = true }, sign(login(id, nil), bindContents(t, other.PublicKey(), other, sessionID(3), true), good), ReasonForwarded, "forwarded to"},
		{"file: forwarded", func(c *Config) { c.RefuseForwarded = true }, sign(raw(fileData("git")), bindContents(t, other.PublicKey(), other, sessionID(3), true)), ReasonForwarded, "git commit"},
		{"login: revoked host", func(c *Config) { c.KnownHosts = []string{revoked} }, sign(login(id, nil), good), ReasonHostRevoked, "revokes"},
		{"login: through a revoked host", func(c *Config) { c.KnownHosts = []string{revoked} }, sign(login(sessionID(4), nil), bindContents(t, host.PublicKey(), host, id, true), bindContents(t, other.PublicKey(), other, sessionID(4), false)), ReasonHostRevoked, "revokes"},
		{"data", nil, sign(raw([]byte("anything"))), ReasonUnknownData, "session identifier"},
		{"data: empty", nil, sign(raw(nil)), ReasonUnknownData, "session identifier"},
		{"data: file without namespace", nil, sign(raw(fileData(""))), ReasonUnknownData, "namespace: empty"},
		{"data: a certificate", nil, sign(raw(certify(t, host.PublicKey(), ca, "x").Marshal())), ReasonUnknownData, ""},
		{"no such key", nil, func(_ *testing.T, a sshagent.ExtendedAgent, _ ssh.PublicKey) error {
			_, err := a.Sign(other.PublicKey(), fileData("git"))
			return err
		}, ReasonUnknownKey, "no plugged card"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, tt.config)
			card := f.cards.plug(t, 1)
			a, _ := f.client()
			if err := tt.do(t, a, card.public()); err == nil {
				t.Fatal("was done")
			}
			reason, text := why(t, a)
			if reason != tt.reason || !strings.Contains(text, tt.text) {
				t.Errorf("got %s: %s, want %s: …%s…", reason, text, tt.reason, tt.text)
			}
			if strings.ContainsAny(text, "\n\r\x1b") {
				t.Errorf("text has control characters: %q", text)
			}
			f.log.wait(t, "refused", "reason="+string(tt.reason))
			if card.opened > 1 {
				t.Error("the card was asked")
			}
			if _, err := a.List(); err != nil {
				t.Errorf("the connection did not go on: %v", err)
			}
		})
	}
}

// TestBindRules: several bindings of one connection, as OpenSSH has them.
func TestBindRules(t *testing.T) {
	a, b := newHostKey(t), newHostKey(t)
	type one struct {
		host      ssh.Signer
		id        byte
		forwarded bool
		reason    Reason
	}
	many := []one{}
	for i := range maxBinds {
		many = append(many, one{a, byte(i), true, ""})
	}
	for name, binds := range map[string][]one{
		"a chain of hosts, then a login": {{a, 1, true, ""}, {b, 2, true, ""}, {b, 3, false, ""}},
		"the same again":                 {{a, 1, true, ""}, {a, 1, true, ""}, {b, 2, false, ""}, {b, 2, false, ""}},
		"after a login":                  {{a, 1, false, ""}, {b, 2, false, ReasonBindOrder}, {b, 3, true, ReasonBindOrder}},
		"another key for a session":      {{a, 1, true, ""}, {b, 1, true, ReasonBindOrder}, {b, 1, false, ReasonBindOrder}},
		"another flag for a session":     {{a, 1, true, ""}, {a, 1, false, ReasonBindOrder}},
		"too many":                       append(many, one{a, 99, true, ReasonBindFull}),
	} {
		t.Run(name, func(t *testing.T) {
			var all bindings
			want := 0
			for i, o := range binds {
				bind, refusal := parseBind(bindContents(t, o.host.PublicKey(), o.host, sessionID(o.id), o.forwarded))
				if refusal != nil {
					t.Fatal(refusal)
				}
				before := len(all)
				refusal = all.add(bind)
				var got Reason
				if refusal != nil {
					got = refusal.Reason
				}
				if got != o.reason {
					t.Fatalf("%d: got %q (%v), want %q", i, got, refusal, o.reason)
				}
				if len(all) > before {
					want++
				}
			}
			if len(all) != want || len(all) > maxBinds {
				t.Errorf("got %d bindings", len(all))
			}
		})
	}
}

// TestShownPurpose: what the person is shown is the host that proved itself, by the name that known_hosts has for it.
func TestShownPurpose(t *testing.T) {
	host, lent, ca := newHostKey(t), newHostKey(t), newHostKey(t)
	certificate := certify(t, host.PublicKey(), ca, "se-1.lab", "se-1")
	hosts := writeKnownHosts(t, "bastion.lab,10.0.0.1 "+line(host.PublicKey()), "@cert-authority *.lab "+line(ca.PublicKey()))
	id := sessionID(1)
	f := start(t, func(c *Config) { c.KnownHosts, c.AllowUnknownData = []string{hosts}, true })
	card := f.cards.plug(t, 1).withTouch()
	for _, tt := range []struct {
		name  string
		binds [][]byte
		data  []byte
		want  string
	}{
		{"login", [][]byte{bindContents(t, host.PublicKey(), host, id, false)}, loginData(id, "anna", card.public(), nil),
			"log in as anna at bastion.lab (host key " + fingerprint(host.PublicKey()) + ")"},
		{"login at a certified host", [][]byte{bindContents(t, certificate, host, id, false)}, loginData(id, "anna", card.public(), certificate),
			"log in as anna at se-1.lab (certificate of se-1.lab/se-1 by " + fingerprint(ca.PublicKey()) + ")"},
		{"unbound", nil, loginData(id, "anna", card.public(), nil), "log in as anna; where is not known (the client does not say)"},
		{"unbound, host named", nil, loginData(id, "anna", card.public(), host.PublicKey()),
			"log in as anna at bastion.lab (host key " + fingerprint(host.PublicKey()) + "), the client says"},
		{"forwarded", [][]byte{bindContents(t, lent.PublicKey(), lent, sessionID(2), true), bindContents(t, host.PublicKey(), host, id, false)}, loginData(id, "anna", card.public(), nil),
			"log in as anna at bastion.lab (host key " + fingerprint(host.PublicKey()) + "), asked for by a host that known_hosts does not have (host key " + fingerprint(lent.PublicKey()) + "), which this agent is forwarded to"},
		{"a name that pretends", nil, loginData(id, "anna at bastion.lab (\u00e9)", card.public(), nil),
			`log in as "anna at bastion.lab (\u00e9)"; where is not known (the client does not say)`},
		{"commit", nil, fileData("git"), "sign a git commit or tag"},
		{"bundle", nil, fileData("mayfly-policy"), "sign a mayfly-policy bundle"},
		{"request", nil, fileData("mayfly-request"), "sign a mayfly-request, an operator's order to the fleet"},
		{"namespace", nil, fileData("log in (as anna)"), `sign a file for the purpose "log in (as anna)"`},
		{"anything", nil, []byte("anything"), "sign data that is neither a login nor a file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := f.client()
			for _, b := range tt.binds {
				if _, err := a.Extension(extensionBind, b); err != nil {
					t.Fatal(err)
				}
			}
			f.screen.mu.Lock()
			before := len(f.screen.shown)
			f.screen.mu.Unlock()
			signed := make(chan error, 1)
			go func() {
				_, err := a.Sign(card.public(), tt.data)
				signed <- err
			}()
			f.screen.wait(t, func(shown []Notice, _ []string) bool { return len(shown) > before })
			card.touch <- nil
			if err := <-signed; err != nil {
				t.Fatal(err)
			}
			f.screen.wait(t, func(_ []Notice, over []string) bool { return len(over) == before+1 && over[before] == "done" })
			f.screen.mu.Lock()
			defer f.screen.mu.Unlock()
			got := f.screen.shown[before]
			if want := "to " + tt.want + " (TEST card 1)"; got.Body != want || got.Title != "Touch your key" {
				t.Errorf("got  %s: %s\nwant %s", got.Title, got.Body, want)
			}
		})
	}
}

// TestMessages: whatever a client sends, it costs its own connection at most.
func TestMessages(t *testing.T) {
	f := start(t, nil)
	f.cards.plug(t, 1)
	for name, tt := range map[string]struct {
		bytes []byte
		log   string // a line's part; the connection ends
		reply bool   // an answer: failure; the connection goes on
	}{
		"a length of 4 GiB":       {[]byte{0xff, 0xff, 0xff, 0xff, 13}, string(ReasonTooLong), false},
		"a length above the most": {binary.BigEndian.AppendUint32(nil, maxMessage+1), string(ReasonTooLong), false},
		"cut off":                 {[]byte{0, 0, 0, 9, 13, 0}, string(ReasonMalformed), false},
		"empty":                   {[]byte{0, 0, 0, 0}, string(ReasonMalformed), true},
		"type 0":                  {[]byte{0, 0, 0, 1, 0}, string(ReasonMalformed), true},
		"type 255":                {[]byte{0, 0, 0, 1, 255}, string(ReasonUnsupported), true},
		"protocol 1":              {[]byte{0, 0, 0, 1, 1}, string(ReasonUnsupported), true},
		"list with more":          {[]byte{0, 0, 0, 2, 11, 0}, string(ReasonMalformed), true},
		"sign, cut off":           {[]byte{0, 0, 0, 3, 13, 0, 0}, string(ReasonMalformed), true},
		"sign, a long key":        {[]byte{0, 0, 0, 5, 13, 0xff, 0xff, 0xff, 0xff}, string(ReasonMalformed), true},
		"extension without name":  {[]byte{0, 0, 0, 1, 27}, string(ReasonMalformed), true},
		"smart card":              {[]byte{0, 0, 0, 1, 20}, string(ReasonUnsupported), true},
	} {
		t.Run(name, func(t *testing.T) {
			conn := f.dial()
			if _, err := conn.Write(tt.bytes); err != nil {
				t.Fatal(err)
			}
			if !tt.reply {
				if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if data, err := io.ReadAll(conn); err != nil && !errors.Is(err, net.ErrClosed) && !isReset(err) || len(data) > 0 {
					t.Errorf("got %x, %v", data, err)
				}
			} else {
				got, err := readMessage(conn, func() error { return nil })
				if err != nil || !bytes.Equal(got, failure) {
					t.Fatalf("got %x, %v", got, err)
				}
				if _, err := sshagent.NewClient(conn).List(); err != nil {
					t.Errorf("the connection did not go on: %v", err)
				}
			}
			f.log.wait(t, "refused", tt.log)
		})
	}
}

// TestConnectionsAreBounded: one more than the most is closed, and there is a place again when one has gone.
func TestConnectionsAreBounded(t *testing.T) {
	f := start(t, nil)
	f.cards.plug(t, 1)
	var all []net.Conn
	for range maxConnections {
		a, conn := f.client()
		if _, err := a.List(); err != nil { // it is served
			t.Fatal(err)
		}
		all = append(all, conn)
	}
	a, _ := f.client()
	if _, err := a.List(); err == nil {
		t.Error("one more is served")
	}
	f.log.wait(t, string(ReasonFull))
	all[0].Close()
	eventually(t, func() error {
		a, conn := f.client()
		defer conn.Close()
		_, err := a.List()
		return err
	})
}

// TestOthersProgramsAreRefused: who connects is asked of the kernel.
func TestOthersProgramsAreRefused(t *testing.T) {
	f := start(t, nil)
	f.stop()
	f.agent.uid++ // as if another user's
	f2 := &fixture{t: t, log: f.log}
	f2.socket = filepath.Join(socketDir(t), "s", "agent.sock")
	serveOn(t, f.agent, f2.socket)
	a, _ := f2.client()
	if _, err := a.List(); err == nil {
		t.Error("was served")
	}
	f.log.wait(t, string(ReasonPeer), fmt.Sprintf("user %d's", os.Getuid()+1))
}

// TestDamagedHandler: a fault of our own is an answer, too.
func TestDamagedHandler(t *testing.T) {
	f := start(t, nil)
	f.agent.hosts.now = func() time.Time { panic("test") }
	f.agent.hosts.files = nil
	card := f.cards.plug(t, 1)
	host := newHostKey(t)
	certificate := certify(t, host.PublicKey(), newHostKey(t), "x")
	a, _ := f.client()
	if _, err := a.Sign(card.public(), loginData(sessionID(1), "anna", card.public(), certificate)); err == nil {
		t.Fatal("was done")
	}
	if reason, _ := why(t, a); reason != ReasonInternal {
		t.Errorf("got %s", reason)
	}
	if _, err := a.List(); err != nil {
		t.Errorf("the agent did not go on: %v", err)
	}
}
