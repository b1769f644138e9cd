package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/pki"
	"mayfly/tunnel/checkin"
	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// TestRegistrationRefusals asks a server for what it must not give; each refusal has its reason.
func TestRegistrationRefusals(t *testing.T) {
	l := newLab(t)
	srv := l.server("srv1", "10.64.1.0/29") // five addresses
	const url = "https://10.77.0.11:7443"
	trusted := pki.VerifyName(l.caPEM, "srv1."+domain)

	good := registration(t)
	if got := l.post(url+wire.PathRegister, good, trusted); got != "200 " {
		t.Fatalf("a good registration: got %q", got)
	}
	lowOrder := device.Key{1}
	own, err := device.ParseKey(strings.TrimSpace(text(t, filepath.Join(l.dir, "srv1", "wg.key"))))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, method, path, body, want string }{
		{"the same key again", "POST", wire.PathRegister, good, "409 key_in_use"},
		{"no JSON", "POST", wire.PathRegister, "hello", "400 malformed"},
		{"nothing", "POST", wire.PathRegister, "", "400 malformed"},
		{"unknown field", "POST", wire.PathRegister, `{"public_key":"x","admin":true}`, "400 malformed"},
		{"field twice", "POST", wire.PathRegister, `{"public_key":"x","Public_Key":"y"}`, "400 malformed"},
		{"more after it", "POST", wire.PathRegister, good + good, "400 malformed"},
		{"short key", "POST", wire.PathRegister, `{"public_key":"AAAA"}`, "400 bad_key"},
		{"zero key", "POST", wire.PathRegister, fmt.Sprintf(`{"public_key":%q}`, device.Key{}.Base64()), "400 bad_key"},
		{"key of low order", "POST", wire.PathRegister, fmt.Sprintf(`{"public_key":%q}`, lowOrder.Base64()), "400 bad_key"},
		{"the server's own key", "POST", wire.PathRegister, fmt.Sprintf(`{"public_key":%q}`, own.Public().Base64()), "400 bad_key"},
		{"oversize", "POST", wire.PathRegister, `{"public_key":"` + strings.Repeat("A", wire.MaxBody) + `"}`, "413 too_large"},
		{"wrong method", "GET", wire.PathRegister, "", "405 wrong_method"},
		{"a path of the inside", "POST", wire.PathRelease, good, "404 not_found"},
		{"no such path", "GET", "/status", "", "404 not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := l.request(c.method, url+c.path, c.body, trusted); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}

	t.Run("wrong name", func(t *testing.T) {
		got := l.post(url+wire.PathRegister, registration(t), pki.VerifyName(l.caPEM, "srv2."+domain))
		if !strings.Contains(got, "srv2."+domain) {
			t.Errorf("got %q, want a refusal of the name", got)
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		old := pki.VerifyName(l.caPEM, "srv1."+domain)
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if got := l.post(url+wire.PathRegister, registration(t), old); !strings.Contains(got, "protocol version") {
			t.Errorf("got %q, want a refusal of the version", got)
		}
	})
	t.Run("hybrid exchange", func(t *testing.T) {
		hybrid := pki.VerifyName(l.caPEM, "srv1."+domain)
		conn, err := l.dial("cli1")(t.Context(), "tcp", "10.77.0.11:7443")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c := tls.Client(conn, hybrid)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().CurveID; got != tls.X25519MLKEM768 {
			t.Errorf("key exchange %s, want X25519MLKEM768", got)
		}
	})
	t.Run("full", func(t *testing.T) {
		for i := range 4 {
			if got := l.post(url+wire.PathRegister, registration(t), trusted); got != "200 " {
				t.Fatalf("registration %d: got %q", i+2, got)
			}
		}
		if got := l.post(url+wire.PathRegister, registration(t), trusted); got != "503 full" {
			t.Errorf("got %q, want full", got)
		}
	})
	t.Run("draining", func(t *testing.T) {
		l.control("srv1", "POST", "/drain", `{"limit_ns":60000000000}`)
		if got := l.post(url+wire.PathRegister, registration(t), trusted); got != "503 draining" {
			t.Errorf("got %q, want draining", got)
		}
	})
	t.Run("busy", func(t *testing.T) {
		for range 100 {
			if got := l.post(url+wire.PathRegister, "", trusted); got == "429 busy" {
				return
			}
		}
		t.Error("100 registrations from one source at once, and never busy")
	})
	for _, secret := range []string{"198.51.100.", good[15:40]} {
		if strings.Contains(srv.stderr.String(), secret) {
			t.Errorf("the log holds %s:\n%s", secret, srv.stderr)
		}
	}
}

// TestTrustRefusals is a client that must not go on: exit code 3, a reason code and a hint, and nothing set up.
func TestTrustRefusals(t *testing.T) {
	l := newLab(t)
	l.server("srv1", "10.64.1.0/24")
	other := func(name string) string {
		pem, _, err := pki.NewCA(name, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return string(pem)
	}
	stranger := newKey(t)
	good := func() { l.publish(nil, entry("srv1", false)) }
	for _, c := range []struct {
		name, want string
		publish    func()
		config     func(*checkin.ClientConfig)
		code       int
	}{
		{"check-in of another CA", "checkin_untrusted", good, func(c *checkin.ClientConfig) { c.CA = other("another") }, command.Refused},
		{"check-in of another name", "checkin_untrusted", good, func(c *checkin.ClientConfig) { c.Name = "srv1." + domain }, command.Refused},
		{"server of another name", "server_untrusted", good, func(c *checkin.ClientConfig) { c.Domain = "other.test" }, command.Refused},
		{"another fleet", "list_other_fleet", func() { l.publish(func(s *checkin.List) { s.Fleet = "other" }, entry("srv1", false)) }, nil, command.Refused},
		{"expired", "list_expired", func() {
			l.publish(func(s *checkin.List) {
				s.Issued, s.Expires = s.Issued.Add(-time.Hour), s.Issued.Add(-time.Minute)
			}, entry("srv1", false))
		}, nil, command.Refused},
		{"from the future", "list_not_yet", func() {
			l.publish(func(s *checkin.List) {
				s.Issued, s.Expires = s.Issued.Add(time.Hour), s.Issued.Add(2*time.Hour)
			}, entry("srv1", false))
		}, nil, command.Refused},
		{"signed by a stranger", "list_unsigned", func() {
			key := l.listKey
			l.listKey = stranger
			defer func() { l.listKey = key }()
			good()
		}, nil, command.Refused},
		{"not signed", "list_unsigned", func() { l.write(filepath.Join(l.dir, "list.json"), []byte(`{"list":"e30K"}`)) }, nil, command.Refused},
		{"no list", "checkin_unreachable", func() { l.write(filepath.Join(l.dir, "list.json"), nil) }, nil, command.Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.publish()
			for _, verb := range [][]string{
				{"register", "--out", filepath.Join(l.dir, "never.conf")}, {"client", "--route", "203.0.113.0/24"},
			} {
				if c.code == command.Failed && verb[0] == "client" {
					continue // it waits for check-in to come back
				}
				args := append(verb, "--config", l.clientConfig(c.config))
				out, err := l.command("cli1", args...).CombinedOutput()
				exit := (*exec.ExitError)(nil)
				if !errors.As(err, &exit) || exit.ExitCode() != c.code {
					t.Errorf("%s: %v, want exit code %d\n%s", verb[0], err, c.code, out)
				}
				if !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "tunnel: error: ") {
					t.Errorf("%s: got %s, want the reason %s", verb[0], out, c.want)
				}
			}
		})
	}
}

func registration(t *testing.T) string {
	t.Helper()
	k, err := device.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"public_key":%q}`, k.Public().Base64())
}

func (l *lab) post(url, body string, c *tls.Config) string { return l.request("POST", url, body, c) }

// request returns the status and the reason, or the error's text.
func (l *lab) request(method, url, body string, c *tls.Config) string {
	l.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: l.dial("cli1"), TLSClientConfig: c.Clone(), DisableKeepAlives: true,
	}}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var r struct{ Reason string }
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, r.Reason)
}
