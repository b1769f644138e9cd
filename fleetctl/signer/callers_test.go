package signer

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/users"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/request"
	"mayfly/rebuild/join"
)

// TestCallers asks everything of the signer as everybody: what is not in the table is refused, and so is everybody who is not.
func TestCallers(t *testing.T) {
	s := offline(t, newFleet(t))
	table, err := users.Config{Signer: "54101", Serve: "54102", Checkin: "54103", Group: "54100"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	s.who = table
	now := time.Now()
	paths := []string{pathTicket, pathRestart, pathChallenge, pathAdmit, pathTwice, pathRenew, pathList, pathDrained, pathExtend, pathService, pathHost, pathRenewal, pathRelease, pathEnd, pathPage, "/v1/other", "/"}
	typed := []string{pathDrained, pathExtend, pathHost, pathRelease, pathPage}
	for _, who := range []struct {
		role users.Role
		uid  int
	}{{users.Root, 0}, {users.Signer, 54101}, {users.Serve, 54102}, {users.Checkin, 54103}, {users.Nobody, 54104}} {
		if got := table.RoleOf(who.uid); got != who.role {
			t.Fatalf("user %d is %q, want %q", who.uid, got, who.role)
		}
		for _, path := range paths {
			r := httptest.NewRequest(http.MethodPost, path, nil)
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, asker{uid: who.uid, role: table.RoleOf(who.uid)}))
			known := strings.Count(path, "/") > 1 && path != "/v1/other"
			want := who.role == users.Serve && known || who.role == users.Checkin && path == pathService || who.role == users.Root && slices.Contains(typed, path)
			if got := s.mayAsk(r, now); (got == nil) != want || got != nil && reason(got) != join.CallerRefused {
				t.Errorf("%q asks for %s: got %v, want leave: %t", who.role, path, got, want)
			}
		}
		for _, name := range []string{inventory.NameController, inventory.NameCheckin, "se-1", ""} {
			r := httptest.NewRequest(http.MethodPost, pathService, nil)
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, asker{uid: who.uid, role: table.RoleOf(who.uid)}))
			want := who.role == users.Serve && name == inventory.NameController || who.role == users.Checkin && name == inventory.NameCheckin
			if got := s.mayBe(r, name, now); (got == nil) != want {
				t.Errorf("%q asks for the certificate of %q: got %v, want leave: %t", who.role, name, got, want)
			}
		}
	}
	if err := s.mayAsk(httptest.NewRequest(http.MethodPost, pathTicket, nil), now); reason(err) != join.CallerRefused {
		t.Errorf("somebody whom the kernel did not name: got %v", err)
	}
	files, err := filepath.Glob(filepath.Join(s.rules.dir, keyDir, logDir, "refused", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no refusal is on record: %v", err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil || !bytes.Contains(data, []byte(`"uid":54103`)) || !bytes.Contains(data, []byte(join.CallerRefused)) {
		t.Errorf("on record: %s, %v", data, err)
	}
	if n := bytes.Count(data, []byte(`"uid":54104`)); n > callersPerHour {
		t.Errorf("%d refusals of one user are on record, want %d at most", n, callersPerHour)
	}
}

// TestEveryPathHasCallers: what the socket answers is in the table, and nothing else.
func TestEveryPathHasCallers(t *testing.T) {
	s := offline(t, newFleet(t))
	mux, ok := s.routes(slog.New(slog.DiscardHandler)).(*http.ServeMux)
	if !ok {
		t.Fatal("no mux")
	}
	for path := range callers {
		if _, pattern := mux.Handler(httptest.NewRequest(http.MethodPost, path, nil)); pattern != "POST "+path {
			t.Errorf("%s is in the table, and the socket answers nothing there", path)
		}
	}
}

// TestOneUser: the signer's own user and root may ask for everything, and nobody else for anything.
func TestOneUser(t *testing.T) {
	s := offline(t, newFleet(t))
	who, err := users.Load(t.TempDir())
	if err != nil || who.Separate {
		t.Fatalf("got %+v, %v", who, err)
	}
	s.who = who
	for uid, want := range map[int]bool{0: true, os.Geteuid(): true, 54104: false} {
		r := httptest.NewRequest(http.MethodPost, pathTicket, nil)
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, asker{uid: uid, role: who.RoleOf(uid)}))
		if err := s.mayAsk(r, time.Now()); (err == nil) != want {
			t.Errorf("user %d: got %v, want leave: %t", uid, err, want)
		}
	}
}

// TestPeer: the kernel says who is there, at both ends; over anything but a unix socket nobody is.
func TestPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, c := range []net.Conn{conn, other} {
		if uid, err := users.Peer(c); err != nil || uid != os.Geteuid() {
			t.Errorf("got %d, %v", uid, err)
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := users.Peer(a); err == nil {
		t.Error("a pipe: got nil, want an error")
	}
}

// TestPage: an engineer gets a certificate for the page by an order that the engineer has signed, once, for half a day at most.
func TestPage(t *testing.T) {
	o := newOperators(t)
	o.change = func(change func(*policies.Policy)) func(*policies.Policy) {
		return func(p *policies.Policy) {
			change(p)
			p.Operators = append(p.Operators, policies.Operator{Engineers: []string{"ana", "bo"}, Actions: []string{policies.ActionPage}})
		}
	}(o.change)
	o.sign(t, 2)
	s := offline(t, o.fleet)
	now := time.Now().UTC()
	_, csr, err := pki.NewOperatorKey("x")
	if err != nil {
		t.Fatal(err)
	}
	_, otherCSR, err := pki.NewOperatorKey("x")
	if err != nil {
		t.Fatal(err)
	}
	order := func(who string, csr []byte, length time.Duration) request.Order {
		made, err := PageOrder(who, csr, length)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	ana := order("ana", csr, time.Hour)
	good := o.order(t, "lab", ana, now, "ana")
	for _, tt := range []struct {
		name  string
		ask   pageRequest
		leave *request.Signed
		want  string
	}{
		{"without a request", pageRequest{"ana", csr, time.Hour, nil}, nil, request.Missing},
		{"in another's name", pageRequest{"ana", csr, time.Hour, nil}, o.order(t, "lab", ana, now, "bo"), request.NotAllowed},
		{"by who may not", pageRequest{"cy", csr, time.Hour, nil}, o.order(t, "lab", order("cy", csr, time.Hour), now, "cy"), request.NotAllowed},
		{"another key", pageRequest{"ana", otherCSR, time.Hour, nil}, good, request.Other},
		{"for longer than was signed", pageRequest{"ana", csr, 2 * time.Hour, nil}, good, request.Other},
		{"for a day", pageRequest{"ana", csr, 24 * time.Hour, nil}, o.order(t, "lab", order("ana", csr, 24*time.Hour), now, "ana"), join.LifetimeTooLong},
		{"nobody's", pageRequest{"mallory", csr, time.Hour, nil}, good, join.NameNotAllowed},
		{"junk", pageRequest{"ana", []byte("x"), time.Hour, nil}, good, join.RequestInvalid},
		{"an expired one", pageRequest{"ana", csr, time.Hour, nil}, o.order(t, "lab", ana, now.Add(-2*time.Hour), "ana"), request.Expired},
		{"good", pageRequest{"ana", csr, time.Hour, nil}, good, ""},
		{"again", pageRequest{"ana", csr, time.Hour, nil}, good, request.Used},
	} {
		tt.ask.Request = tt.leave
		a, err := s.page(tt.ask, now)
		if got := reason(err); got != tt.want || (len(a.Chain) > 0) != (tt.want == "") {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, err, tt.want)
		}
	}
	if got := records(t, o.dir, logDir, "page"); len(got) != 1 || got[0]["name"] != "ana" {
		t.Errorf("on record: %v", got)
	}
	s.keys.people = nil
	if _, err := s.page(pageRequest{"ana", csr, time.Hour, nil}, now); reason(err) != join.NameNotAllowed {
		t.Errorf("without an operators' CA: got %v", err)
	}
}
