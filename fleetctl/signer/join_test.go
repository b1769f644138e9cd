package signer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/pki"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// TestLife goes through a life over real TLS and a real store: join, stream, health, policy, drain, renewal, second use.
func TestLife(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	ctx := t.Context()
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	before := time.Now()
	answer, err := c.Join(ctx, m.request(data, sig))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := f.bundle(); !bytes.Equal(answer.Bundle, b) {
		t.Error("the bundle is not the one in force")
	}
	leaf := m.pair(t, answer.TLS).Leaf
	if leaf.Subject.CommonName != "se-1.lab.test" || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "se-1.lab.test" {
		t.Errorf("certificate for %q, %q", leaf.Subject.CommonName, leaf.DNSNames)
	}
	if life := leaf.NotAfter.Sub(before); life > MaxServerLife+time.Second || !answer.NotAfter.After(before) {
		t.Errorf("certificate for %s, at most %s", life, MaxServerLife)
	}
	s, err := f.store.Server(ctx, testServer)
	if err != nil {
		t.Fatal(err)
	}
	if s.State != inventory.Attesting || s.BootID != m.bootID || s.HostKey != m.host || s.TLSKey == "" || s.Deadline.IsZero() {
		t.Errorf("the store has %+v", s)
	}

	conn, err := c.Stream(ctx, m.pair(t, answer.TLS))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health := join.Health{BootID: m.bootID, Ready: true, Services: map[string]string{"sshd": "running"}}
	if err := join.WriteFrame(conn, join.FromServer{Health: &health}); err != nil {
		t.Fatal(err)
	}
	wait(t, "health in the store", func() bool {
		s, err := f.store.Server(ctx, testServer)
		var got join.Health
		return err == nil && json.Unmarshal(s.Health, &got) == nil && got.Ready && got.Services["sshd"] == "running"
	})
	frames := join.NewFrames(conn, join.MaxToServer)
	if got, err := frames.ToServer(); err != nil || got.Policy == nil {
		t.Fatalf("first order: got %+v, %v; want the policy", got, err)
	}
	// A login is kept once, however often it comes, and the server hears of it each time.
	login := join.Login{Number: 1, Time: time.Now().UTC(), User: "ana", Method: "publickey", Key: "SHA256:x", Peer: netip.MustParseAddrPort("127.0.0.2:4000")}
	for range 2 {
		if err := join.WriteFrame(conn, join.FromServer{Login: &login}); err != nil {
			t.Fatal(err)
		}
		if got, err := frames.ToServer(); err != nil || got.Logins == nil || got.Logins.Through != 1 {
			t.Fatalf("after a login: got %+v, %v", got, err)
		}
	}
	kept, err := f.store.Logins(ctx, time.Time{})
	if err != nil || len(kept) != 1 || kept[0].Server != testServer || kept[0].Epoch != tk.Epoch || kept[0].User != "ana" || kept[0].Peer != login.Peer || !kept[0].At.Equal(login.Time) {
		t.Errorf("kept %+v, %v", kept, err)
	}
	began := time.Now()
	f.sign(t, 2)
	if got, err := frames.ToServer(); err != nil || got.Policy == nil {
		t.Fatalf("a newer policy: got %+v, %v", got, err)
	}
	f.mu.Lock()
	f.steps = []join.Trust{{Version: 2, File: []byte("a step"), Sig: []byte("its signatures")}, {Version: 3, File: []byte("another")}}
	f.mu.Unlock()
	for _, want := range f.steps { // each once: what comes next is the drain
		if got, err := frames.ToServer(); err != nil || got.Trust == nil || got.Trust.Version != want.Version || string(got.Trust.File) != string(want.File) {
			t.Fatalf("a step of the trust policy: got %+v, %v, want %+v", got, err, want)
		}
	}
	t.Logf("a newer policy was at the server after %s", time.Since(began).Round(time.Millisecond))
	if err := f.store.OrderDrain(ctx, testServer, tk.Epoch, 7*time.Second); err != nil {
		t.Fatal(err)
	}
	if got, err := frames.ToServer(); err != nil || got.Drain == nil || got.Drain.Limit != 7*time.Second {
		t.Fatalf("a drain: got %+v, %v", got, err)
	}
	if err := join.WriteFrame(conn, join.FromServer{Drained: &join.Drained{Forced: true}}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the drain's end in the store", func() bool {
		s, err := f.store.Server(ctx, testServer)
		return err == nil && s.Drained && s.DrainForced
	})

	renewed, err := c.Renew(ctx, m.pair(t, answer.TLS), m.renewal(answer.TLS))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(renewed.TLS, answer.TLS) {
		t.Error("renewal gave the same certificate")
	}

	// The second use is refused and takes away what the first one got.
	other := newMachine(t)
	if _, err := c.Join(ctx, other.request(data, sig)); reason(err) != join.TicketUsed {
		t.Fatalf("second use: got %v, want %s", err, join.TicketUsed)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := frames.ToServer(); err == nil {
		t.Errorf("the stream goes on: %+v", got)
	} else if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Error("the stream was not cut")
	}
	if _, err := c.Renew(ctx, m.pair(t, renewed.TLS), m.renewal(renewed.TLS)); reason(err) != join.LifeRevoked {
		t.Errorf("renewal of a revoked life: got %v, want %s", err, join.LifeRevoked)
	}
	if _, err := f.client.Renew(ctx, m.renewal(renewed.TLS)); reason(err) != join.LifeRevoked {
		t.Errorf("the signer renews a revoked life: got %v, want %s", err, join.LifeRevoked)
	}
	again, err := c.Stream(ctx, m.pair(t, renewed.TLS))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if n, err := again.Read(make([]byte, 1)); err == nil {
		t.Errorf("a revoked life has a stream: read %d bytes", n)
	}
}

// TestOldTicketHarmsNoLaterLife: who has one used ticket ends the life that it began, and nothing of the lives after it.
func TestOldTicketHarmsNoLaterLife(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	ctx := t.Context()
	tk, stolen, stolenSig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Join(ctx, newMachine(t).request(stolen, stolenSig)); err != nil {
		t.Fatal(err)
	}
	_, data, sig := f.begin(t)
	m := newMachine(t)
	replay := func() {
		t.Helper()
		if _, err := c.Join(ctx, newMachine(t).request(stolen, stolenSig)); reason(err) != join.TicketUsed {
			t.Fatalf("the old ticket: got %v, want %s", err, join.TicketUsed)
		}
	}
	for range admitsPerHour {
		replay()
	}
	second, err := c.Join(ctx, m.request(data, sig))
	if err != nil {
		t.Fatalf("the next life, after the old ticket came %d times: %v", admitsPerHour, err)
	}
	conn, err := c.Stream(ctx, m.pair(t, second.TLS))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	frames := join.NewFrames(conn, join.MaxToServer)
	if got, err := frames.ToServer(); err != nil || got.Policy == nil {
		t.Fatalf("first order: got %+v, %v; want the policy", got, err)
	}
	replay()
	f.sign(t, 2)
	if got, err := frames.ToServer(); err != nil || got.Policy == nil {
		t.Errorf("the next life's stream after the old ticket came again: got %+v, %v; want the policy", got, err)
	}
	if _, err := c.Renew(ctx, m.pair(t, second.TLS), m.renewal(second.TLS)); err != nil {
		t.Errorf("the next life's renewal: %v", err)
	}
}

// TestReportIsPrintable: the detail of a report reaches an operator's terminal, and whoever has a ticket can write it.
func TestReportIsPrintable(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	r := join.Report{Ticket: data, Signature: sig, Stage: "stub", Reason: "disk_present", Detail: "sda\x1b]0;x\a\nfleetctl: all is well\u009b2J"}
	if err := c.Report(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	reason, detail, ok, err := f.store.LastFailure(t.Context(), testServer, tk.Epoch)
	if want := "stub: sda ]0;x  fleetctl: all is well  2J"; err != nil || !ok || reason != "disk_present" || detail != want {
		t.Errorf("got %q, %q, %v, %v, want %q", reason, detail, ok, err, want)
	}
}

// TestNextLife: the certificate of an earlier life opens nothing in the next one.
func TestNextLife(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	ctx := t.Context()
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	first, err := c.Join(ctx, m.request(data, sig))
	if err != nil {
		t.Fatal(err)
	}
	tk2, data2, sig2 := f.begin(t)
	if tk2.Epoch != tk.Epoch+1 {
		t.Fatalf("epochs %d and %d", tk.Epoch, tk2.Epoch)
	}
	if _, err := c.Renew(ctx, m.pair(t, first.TLS), m.renewal(first.TLS)); reason(err) != join.LifeUnknown {
		t.Errorf("got %v, want %s", err, join.LifeUnknown)
	}
	if _, err := c.Join(ctx, newMachine(t).request(data2, sig2)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.Renew(ctx, m.renewal(first.TLS)); reason(err) != join.LifeUnknown {
		t.Errorf("the signer: got %v, want %s", err, join.LifeUnknown)
	}
	if _, err := f.client.Admit(ctx, m.request(data, sig)); reason(err) != join.TicketOlder {
		t.Errorf("an earlier life's ticket: got %v, want %s", err, join.TicketOlder)
	}
}

func TestJoinRefuses(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	ctx := t.Context()
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	ticketKey := f.ticketKey(t)
	resign := func(change func(*ticket.Ticket)) join.Request {
		x := tk
		change(&x)
		d, err := x.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		s, err := sshsig.Sign(ticketKey, ticket.Namespace, d)
		if err != nil {
			t.Fatal(err)
		}
		return m.request(d, s)
	}
	flipped := bytes.Clone(data)
	flipped[60] ^= 1
	tests := []struct {
		name string
		req  join.Request
		want string
	}{
		{"unsigned", m.request(flipped, sig), ticket.Unsigned},
		{"never issued", resign(func(x *ticket.Ticket) { x.Secret = x.Release }), join.TicketUnknown},
		{"other server", resign(func(x *ticket.Ticket) { x.Server = "se-9" }), join.ServerUnknown},
		{"other epoch", resign(func(x *ticket.Ticket) { x.Epoch++ }), join.TicketUnknown},
		{"other fleet", resign(func(x *ticket.Ticket) { x.Fleet = "prod" }), ticket.OtherFleet},
		{"expired", resign(func(x *ticket.Ticket) { x.NotAfter = x.NotAfter.Add(-time.Hour) }), ticket.Expired},
		{"no host key", func() join.Request { r := m.request(data, sig); r.HostKey = ""; return r }(), join.RequestInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.Join(ctx, tt.req); reason(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name, path string
		body       []byte
		status     int
		want       string
	}{
		{"oversized join", join.PathJoin, bytes.Repeat([]byte(" "), join.MaxJoin+1), 403, join.BodyOversize},
		{"oversized report", join.PathReport, bytes.Repeat([]byte(" "), join.MaxRequest+1), 403, join.BodyOversize},
		{"oversized challenge", join.PathChallenge, bytes.Repeat([]byte(" "), join.MaxRequest+1), 403, join.BodyOversize},
		{"challenge without a ticket", join.PathChallenge, mustEncode(t, join.ChallengeRequest{}), 403, join.RequestInvalid},
		{"unknown field", join.PathJoin, []byte(`{"x":1}`), 403, join.BodyMalformed},
		{"no JSON", join.PathReport, []byte(`x`), 403, join.BodyMalformed},
		{"renewal without a certificate", join.PathRenew, mustEncode(t, m.renewal(selfSigned(t, m.csr))), 403, join.CertificateBad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := f.post(t, tt.path, tt.body)
			var r join.Refusal
			if err := json.Unmarshal(body, &r); err != nil {
				t.Fatalf("answer %q: %v", body, err)
			}
			if status != tt.status || r.Reason != tt.want {
				t.Errorf("got %d %s (%s), want %d %s", status, r.Reason, r.Detail, tt.status, tt.want)
			}
		})
	}
	t.Run("certificate of another CA", func(t *testing.T) {
		conn, err := c.Stream(ctx, m.pair(t, selfSigned(t, m.csr)))
		if err == nil {
			defer conn.Close()
			if _, err = conn.Read(make([]byte, 1)); err == nil {
				t.Error("another CA's certificate has a stream")
			}
		}
	})
	t.Run("replaced ticket", func(t *testing.T) {
		next := f.newTicket(t, tk.Epoch)
		d, _, err := f.client.Ticket(ctx, next)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.store.PutTicket(ctx, testServer, tk.Epoch, ticket.Hash(d), next.NotAfter); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Join(ctx, m.request(data, sig)); reason(err) != join.TicketRevoked {
			t.Errorf("got %v, want %s", err, join.TicketRevoked)
		}
	})
	t.Run("report", func(t *testing.T) {
		err := c.Report(ctx, join.Report{Ticket: data, Signature: sig, Stage: "init", Reason: "disk_present", Detail: "block device sda"})
		if err != nil {
			t.Fatal(err)
		}
		why, detail, ok, err := f.store.LastFailure(ctx, testServer, tk.Epoch)
		if err != nil || !ok || why != "disk_present" {
			t.Errorf("got %q, %q, %v, %v", why, detail, ok, err)
		}
	})
	if s, err := f.store.Server(ctx, testServer); err != nil || s.State != inventory.Booting {
		t.Errorf("after refusals the server is %s, %v; want booting", s.State, err)
	}
}

func TestReleases(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	if err := os.Symlink("/etc/passwd", filepath.Join(f.dir, "public/releases/7/root.erofs")); err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("http://127.0.0.1:%d", f.inv.Controller.BootPort)
	for path, want := range map[string]int{
		"/releases/7/release.json":                   200,
		"/releases/7/vmlinuz":                        404,
		"/releases/7/root.erofs":                     404, // a link that leads out
		"/releases/7/secret":                         404,
		"/releases/7/":                               404,
		"/releases/":                                 404,
		"/":                                          404,
		"/releases/7/../7/release.json":              404,
		"/releases/7/%2e%2e/7/release.json":          404,
		"/releases/07/release.json":                  404,
		"/releases/7/release.json?x":                 404,
		"/signer/tls-ca.key":                         404,
		"/releases/99999999999999999999/vmlinuz":     404,
		"/releases/7//release.json":                  404,
		"/releases/../../signer/tls-ca.key":          404,
		"/releases/%2e%2e%2f%2e%2e%2fsigner/vmlinuz": 404,
	} {
		// A client of our own: Go's cleans paths.
		status := rawGet(t, f.inv.Controller.BootPort, path)
		if status != want {
			t.Errorf("%s: got %d, want %d", path, status, want)
		}
	}
	res, err := http.Post(base+"/releases/7/release.json", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d, want %d", res.StatusCode, http.StatusMethodNotAllowed)
	}
}

func TestLogVerifies(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Join(t.Context(), newMachine(t).request(data, sig)); err != nil {
		t.Fatal(err)
	}
	n, err := audit.Read(filepath.Join(f.dir, keyDir, logDir), 0, func(_ uint64, line []byte) error {
		if !strings.Contains(string(line), `"test":true`) { // as the fleet says
			t.Errorf("a record does not say that it is a test fleet's: %s", line)
		}
		return nil
	})
	if err != nil || n != 3 { // the controller's certificate, the ticket, the admission
		t.Errorf("got %d records, %v; want 3", n, err)
	}
}

func mustEncode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := join.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// post sends a body that join's own client would not.
func (f *fleet) post(t *testing.T, path string, body []byte) (int, []byte) {
	t.Helper()
	pool, err := pki.Pool(f.public.TLSCA)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: f.clientTLS(pool), DisableKeepAlives: true}}
	res, err := client.Post(fmt.Sprintf("https://127.0.0.1:%d%s", f.inv.Controller.JoinPort, path), "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, answer
}

func (f *fleet) clientTLS(pool *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: pool, ServerName: "controller.lab.test", MinVersion: tls.VersionTLS13}
}

func rawGet(t *testing.T, port uint16, path string) int {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	var proto string
	var status int
	if _, err := fmt.Fscan(c, &proto, &status); err != nil {
		t.Fatal(err)
	}
	return status
}
