package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/rebuild/join"
)

func TestBastionConfiguration(t *testing.T) {
	const want = `listen = "10.77.0.14:22"
trust = "/run/mayfly/bastion/trust.json"
bundle = "/run/mayfly/bastion/bundle.json"
host_key = "/run/mayfly/bastion/host_key"
host_certificate = "/run/mayfly/bastion/host_key-cert.pub"
audit = "/run/mayfly/bastion/audit"
control = "/run/mayfly/bastion/run/control.sock"
drain_limit = "5s"
audit_replica = "http://127.0.0.1:9101"
audit_life = 7
witnesses = ["http://10.77.0.1:9000", "http://10.77.0.1:9001"]
`
	own := netip.MustParseAddr("10.77.0.14")
	got := string(bastionConfiguration(own, 7, []string{"http://10.77.0.1:9000", "http://10.77.0.1:9001"}))
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := string(bastionConfiguration(own, 7, nil)); strings.Contains(got, "witnesses") {
		t.Errorf("without witnesses: got %s", got)
	}
	if s := (&gate{}).service(); s.uid != bastionUID || s.users || len(s.caps) != 2 || s.caps[0] != unix.CAP_NET_BIND_SERVICE {
		t.Errorf("got %+v", s)
	}
}

func TestBastionRules(t *testing.T) {
	p := policies.Policy{SSH: policies.SSH{
		Allow:   []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("203.0.113.0/24")},
		Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")},
	}}
	var open []string
	for _, r := range bastionRules(allowedNetworks(p)) {
		if r.port != 0 {
			open = append(open, r.net.String())
			if r.in != outside || r.proto != unix.IPPROTO_TCP || r.port != inventory.PortSSH || r.discard {
				t.Errorf("line %+v", r)
			}
		}
		if r.ping {
			t.Error("it answers pings")
		}
	}
	if got := strings.Join(open, " "); got != "192.0.2.0/28 198.51.100.7/32 203.0.113.0/24" {
		t.Errorf("open for %s", got)
	}
	if err := checkRules(bastionRules(allowedNetworks(p))); err != nil {
		t.Error(err)
	}
	if err := checkRules(bastionRules([]netip.Prefix{netip.MustParsePrefix("2001:db8::/32")})); err == nil {
		t.Error("an address that is not IPv4 is taken")
	}
	if got := bastionAddresses(inventory.Fleet{Bastions: []inventory.Bastion{{Name: "a", Address: netip.MustParseAddr("10.77.0.2")}},
		Servers: []inventory.Server{{Name: "b", Role: inventory.RoleBastion, Address: netip.MustParsePrefix("10.77.0.14/24")}, {Name: "c", Role: inventory.RoleVPN, Address: netip.MustParsePrefix("10.77.0.15/24")}}}); len(got) != 2 || got[1] != netip.MustParseAddr("10.77.0.14") {
		t.Errorf("servers let in %v", got)
	}
}

// TestAuditHandler passes on what the bastion says and the controller answers, and nothing else.
func TestAuditHandler(t *testing.T) {
	var sent string
	status, answer, failed := http.StatusOK, `{"next":1,"size":0}`, error(nil)
	server := httptest.NewServer(auditHandler(func(_ context.Context, batch []byte) (int, []byte, error) {
		sent = string(batch)
		return status, []byte(answer), failed
	}))
	defer server.Close()
	post := func(body string) (int, string) {
		t.Helper()
		res, err := http.Post(server.URL, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		data, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(data)
	}
	if code, got := post("batch"); code != status || got != answer || sent != "batch" {
		t.Errorf("got %d %s, sent %q", code, got, sent)
	}
	status, answer = http.StatusForbidden, `{"reason":"audit_refused"}`
	if code, got := post("batch"); code != status || got != answer {
		t.Errorf("a refusal: got %d %s", code, got)
	}
	failed = errors.New("nobody\nthere")
	if code, got := post("batch"); code != http.StatusBadGateway || got != "nobody there\n" {
		t.Errorf("without a controller: got %d %q", code, got)
	}
	failed, sent = nil, ""
	if code, _ := post(strings.Repeat("x", join.MaxAuditBatch+1)); code != http.StatusRequestEntityTooLarge || sent != "" {
		t.Errorf("too much: got %d", code)
	}
	res, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %d", res.StatusCode)
	}
}

// TestGateAsks reads what a bastion's control socket says (docs/formats/control.md).
func TestGateAsks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answers := []struct {
		say  string
		well bool
	}{
		{`{"status":{"audit":{"works":true,"records":3},"more":1}}`, true},
		{`{"status":{"audit":{"works":false,"error":"behind"}}}`, false},
		{`{"error":"no"}`, false},
		{`{}`, false},
		{``, false},
	}
	questions := make(chan string, len(answers))
	go func() {
		for _, a := range answers {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			questions <- line
			_, _ = io.WriteString(conn, a.say+"\n")
			_ = conn.Close()
		}
	}()
	g := &gate{control: path}
	for _, a := range answers {
		if err := g.probe(t.Context()); (err == nil) != a.well {
			t.Errorf("%s: got %v", a.say, err)
		}
		if q := <-questions; q != `{"kind":"mayfly-bastion-control/1","do":"status"}`+"\n" {
			t.Errorf("asked %q", q)
		}
	}
}

// TestRetire ends a service for good when it was told to end.
func TestRetire(t *testing.T) {
	starts := 0
	done := make(chan unix.WaitStatus, 1)
	s := newSupervisor(func(spec) (process, error) { starts++; return process{pid: 7, done: done}, nil })
	s.run(t.Context(), spec{name: "x"})
	s.retire("x")
	done <- 0
	over := make(chan struct{})
	go func() { s.wg.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	if s.state("x") != stateOver || starts != 1 {
		t.Errorf("state %q after %d starts", s.state("x"), starts)
	}
}
