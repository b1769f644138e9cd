package bastion

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/testenv/rawssh"
	"mayfly/testenv/softkey"
)

func TestLoginAndJump(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))

	negotiated := client.Conn.(ssh.AlgorithmsConnMetadata).Algorithms()
	if got, want := negotiated.KeyExchange, ssh.KeyExchangeMLKEM768X25519; got != want {
		t.Errorf("key exchange: got %s, want %s", got, want)
	}
	if got, want := negotiated.HostKey, ssh.CertAlgoED25519v01; got != want {
		t.Errorf("host key: got %s, want %s", got, want)
	}

	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("mayfly "), 100_000)
	go func() {
		conn.Write(sent)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("echoed %d bytes, want %d", len(got), len(sent))
	}
	conn.Close()
	f.hangUp(client)

	login := f.next(eventLogin)
	if !strings.Contains(string(login.Record), `"test":true`) {
		t.Errorf("login record does not say test: %s", login.Record)
	}
	r := f.closing()
	if r.Outcome != "accepted" || r.Reason != policies.Allowed || r.User != "anna" || r.Identity != "engineer" || r.Ended != endClient || !r.Test || r.Evidence != "test:softkey" {
		t.Errorf("closing record: %+v", r)
	}
	if want := ssh.FingerprintSHA256(f.anna.Public()); r.Key != want || r.ClaimedKey != "" {
		t.Errorf("key: got %s, claimed %q, want %s", r.Key, r.ClaimedKey, want)
	}
	if len(r.Targets) != 1 {
		t.Fatalf("targets: got %d, want 1", len(r.Targets))
	}
	n := int64(len(sent))
	if got := r.Targets[0]; got.Server != "se-1" || got.Address != "10.77.0.11" || got.Port != 22 || got.Up != n || got.Down != n || (got.Ended != endTarget && got.Ended != endClient) { // both ends close at about the same time
		t.Errorf("target: %+v", got)
	}
	if r.Up != n || r.Down != n || len(r.Refused) != 0 {
		t.Errorf("totals: %+v", r)
	}
}

func TestFullNameIsTheServer(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.12:22", echo)
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	conn, err := client.Dial("tcp", "se-2.lab.internal:22")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestRefusedLogins pins the reason of each refusal, those of the SSH library among them.
func TestRefusedLogins(t *testing.T) {
	raw := func(t *testing.T, f *fixture, after func(*rawssh.Client)) {
		t.Helper()
		c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		after(c)
	}
	mustRefuse := func(t *testing.T, f *fixture, user string, signers ...ssh.Signer) {
		t.Helper()
		if client, err := f.client(user, signers...); err == nil {
			client.Close()
			t.Fatal("logged in")
		}
	}
	software := newSigner(t)
	for _, test := range []struct {
		name   string
		attack func(*testing.T, *fixture)
		want   policies.Reason
		check  func(*testing.T, *fixture, closingRecord)
	}{
		{name: "no key", want: noKey, attack: func(t *testing.T, f *fixture) { mustRefuse(t, f, "anna") }},
		{name: "password in raw packets", want: methodPassword, attack: func(t *testing.T, f *fixture) {
			raw(t, f, func(c *rawssh.Client) {
				if err := c.Service(); err != nil {
					t.Fatal(err)
				}
				reply, err := c.Password("anna", "hunter2")
				if err != nil || reply.Success || len(reply.Methods) != 1 || reply.Methods[0] != "publickey" {
					t.Errorf("got %+v, %v, want publickey only", reply, err)
				}
			})
		}, check: func(t *testing.T, f *fixture, r closingRecord) {
			if r.User != "anna" || r.Tries != 1 {
				t.Errorf("record: %+v", r)
			}
		}},
		{name: "keyboard-interactive in raw packets", want: methodRefused, attack: func(t *testing.T, f *fixture) {
			raw(t, f, func(c *rawssh.Client) {
				if err := c.Service(); err != nil {
					t.Fatal(err)
				}
				if reply, err := c.Authenticate("anna", "keyboard-interactive", make([]byte, 8)); err != nil || reply.Success {
					t.Errorf("got %+v, %v", reply, err)
				}
			})
		}},
		{name: "only none in raw packets", want: noKey, attack: func(t *testing.T, f *fixture) {
			raw(t, f, func(c *rawssh.Client) {
				if err := c.Service(); err != nil {
					t.Fatal(err)
				}
				if reply, err := c.None("anna"); err != nil || reply.Success {
					t.Errorf("got %+v, %v", reply, err)
				}
			})
		}},
		{name: "too many tries of none", want: tooManyTries, attack: func(t *testing.T, f *fixture) {
			raw(t, f, func(c *rawssh.Client) {
				if err := c.Service(); err != nil {
					t.Fatal(err)
				}
				for range maxAuthTries + 1 {
					if _, err := c.None("anna"); err != nil {
						return
					}
				}
				t.Error("never disconnected")
			})
		}},
		{name: "user root", want: policies.UserRoot, attack: func(t *testing.T, f *fixture) {
			mustRefuse(t, f, "root", f.anna.Signer(softkey.Always))
		}},
		{name: "software key", want: policies.KeyNotHardware, attack: func(t *testing.T, f *fixture) {
			mustRefuse(t, f, "anna", software)
		}, check: func(t *testing.T, f *fixture, r closingRecord) {
			if want := ssh.FingerprintSHA256(software.PublicKey()); r.Key != want || r.KeyType != ssh.KeyAlgoED25519 || r.Test {
				t.Errorf("key: %+v", r)
			}
		}},
		{name: "no touch", want: keyNoTouch, attack: func(t *testing.T, f *fixture) {
			mustRefuse(t, f, "anna", f.anna.Signer(softkey.Never))
		}, check: func(t *testing.T, f *fixture, r closingRecord) {
			if r.Key != "" || r.ClaimedKey != ssh.FingerprintSHA256(f.anna.Public()) {
				t.Errorf("a key that was not proven is recorded as proven: %+v", r)
			}
		}},
		{name: "bad signature", want: badSignature, attack: func(t *testing.T, f *fixture) {
			mustRefuse(t, f, "anna", forger{f.anna.Public(), f.bert.Signer(softkey.Always)})
		}},
		{name: "key of another engineer", want: policies.KeyUnknown, attack: func(t *testing.T, f *fixture) {
			mustRefuse(t, f, "anna", f.bert.Signer(softkey.Always))
		}},
		{name: "unknown user", want: policies.UserUnknown, attack: func(t *testing.T, f *fixture) {
			mustRefuse(t, f, "mallory", f.anna.Signer(softkey.Always))
		}},
		{name: "control characters in the user's name", want: policies.UserUnknown, attack: func(t *testing.T, f *fixture) {
			mustRefuse(t, f, "an\x1b[2Jna\n\u202e\xff", f.anna.Signer(softkey.Always))
		}, check: func(t *testing.T, f *fixture, r closingRecord) {
			if want := `an\x1b[2Jna\n\u202e\xff`; r.User != want {
				t.Errorf("user: got %q, want %q", r.User, want)
			}
		}},
		{name: "certificate that waives touch", want: policies.CertificateOption, attack: func(t *testing.T, f *fixture) {
			certificate := &ssh.Certificate{Key: software.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"anna"},
				ValidBefore: ssh.CertTimeInfinity, Permissions: ssh.Permissions{Extensions: map[string]string{"no-touch-required": ""}}}
			if err := certificate.SignCert(constant{}, f.hostCA); err != nil {
				t.Fatal(err)
			}
			signer, err := ssh.NewCertSigner(certificate, software)
			if err != nil {
				t.Fatal(err)
			}
			mustRefuse(t, f, "anna", signer)
		}},
		{name: "no common algorithm", want: noCommonAlgorithm, attack: func(t *testing.T, f *fixture) {
			if c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{KeyExchanges: []string{"diffie-hellman-group14-sha1"}}); err == nil {
				c.Close()
				t.Error("keys exchanged")
			}
		}},
		{name: "chacha20 only", want: noCommonAlgorithm, attack: func(t *testing.T, f *fixture) {
			if c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{Ciphers: []string{"chacha20-poly1305@openssh.com", "aes256-ctr"}}); err == nil {
				c.Close()
				t.Error("keys exchanged")
			}
		}},
		{name: "left before a word", want: leftEarly, attack: func(t *testing.T, f *fixture) {
			conn, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}},
		{name: "left after key exchange", want: leftEarly, attack: func(t *testing.T, f *fixture) {
			raw(t, f, func(*rawssh.Client) {})
		}},
		{name: "not SSH", want: protocolError, attack: func(t *testing.T, f *fixture) {
			conn, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "SSH-2.0-x\r\n"+strings.Repeat("A", 4096)); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, conn)
		}},
		{name: "a channel before authentication", want: protocolError, attack: func(t *testing.T, f *fixture) {
			raw(t, f, func(c *rawssh.Client) {
				if err := c.Service(); err != nil {
					t.Fatal(err)
				}
				if err := c.Write(ssh.Marshal(struct {
					Type            string `sshtype:"90"`
					ID, Window, Max uint32
				}{"session", 0, 1 << 20, 1 << 15})); err != nil {
					t.Fatal(err)
				}
				if packet, err := c.Read(); err == nil && packet[0] != rawssh.MsgDisconnect {
					t.Errorf("answered with message %d", packet[0])
				}
			})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.start()
			test.attack(t, f)
			r := f.closing()
			if r.Outcome != "refused" || r.Reason != test.want || r.Ended != endRefused {
				t.Errorf("got %s, %s (%s), want refused, %s", r.Outcome, r.Reason, r.Detail, test.want)
			}
			if r.Source == "" || r.Connection == "" || r.Policy != 1 {
				t.Errorf("record lacks source, connection or policy: %+v", r)
			}
			if test.check != nil {
				test.check(t, f, r)
			}
			select {
			case e := <-f.spy.entries:
				t.Errorf("another record: %s %s", e.Event, e.Record)
			default:
			}
		})
	}
}

// TestOffersTellNothing sees that a stranger learns from no answer which keys are enrolled.
func TestOffersTellNothing(t *testing.T) {
	f := newFixture(t)
	f.start()
	stranger, err := softkey.New(constant{})
	if err != nil {
		t.Fatal(err)
	}
	var answers []string
	for _, offer := range []struct {
		user string
		key  ssh.PublicKey
	}{{"anna", f.anna.Public()}, {"anna", stranger.Public()}, {"mallory", f.anna.Public()}, {"root", stranger.Public()}} {
		c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Service(); err != nil {
			t.Fatal(err)
		}
		if err := c.Write(ssh.Marshal(struct {
			User, Service, Method string `sshtype:"50"`
			Signed                bool
			Algorithm             string
			Key                   []byte
		}{User: offer.user, Service: "ssh-connection", Method: "publickey", Algorithm: offer.key.Type(), Key: offer.key.Marshal()})); err != nil {
			t.Fatal(err)
		}
		packet, err := c.Read()
		for err == nil && packet[0] == 7 { // server-sig-algs
			packet, err = c.Read()
		}
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, string(packet[:1]))
		c.Close()
		if r := f.closing(); r.Reason != leftEarly || r.Key != "" {
			t.Errorf("an offer left a trace: %+v", r)
		}
	}
	for i, a := range answers {
		if a != answers[0] {
			t.Errorf("offer %d is answered with message %d, offer 0 with %d", i, a[0], answers[0][0])
		}
	}
}

// forger claims one key and signs with another.
type forger struct {
	claimed ssh.PublicKey
	signer  ssh.Signer
}

func (f forger) PublicKey() ssh.PublicKey { return f.claimed }
func (f forger) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return f.signer.Sign(r, data)
}

// constant is a source of bytes that are always the same.
type constant struct{}

func (constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 7
	}
	return len(b), nil
}
