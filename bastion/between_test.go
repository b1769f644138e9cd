package bastion

import (
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"log/slog"
	"net"

	"mayfly/bastion/listen"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/testenv/softkey"
)

// These tests change what is in force between two steps of one decision. They store the ruling and leave out what reload does to
// live sessions: what is seen is the step's own second look.

// amended is a ruling like the one in force, with a change.
func (f *fixture) amended(change func(*policies.Policy, *inventory.Fleet)) *ruling {
	f.t.Helper()
	old := f.server.ruling.Load()
	b := *old.bundle
	b.Policy.Engineers = slices.Clone(b.Policy.Engineers)
	b.Policy.Grants = slices.Clone(b.Policy.Grants)
	b.Inventory.Servers = slices.Clone(b.Inventory.Servers)
	change(&b.Policy, &b.Inventory)
	next, err := rule(&b, old.keys)
	if err != nil {
		f.t.Fatal(err)
	}
	next.fresh = old.fresh
	return next
}

// TestListIsCheckedAfterAccept opens the kernel's filter, as after a swap that failed: the list in force still decides.
func TestListIsCheckedAfterAccept(t *testing.T) {
	f := newFixture(t)
	f.start()
	open, err := listen.Filter([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.server.listener.Swap(open); err != nil {
		t.Fatal(err)
	}
	conn, err := dialFrom(t.Context(), "127.0.0.66", f.address)
	if err == nil {
		defer conn.Close()
		if n, err := conn.Read(make([]byte, 8)); err == nil {
			t.Fatalf("greeted with %d bytes", n)
		}
	} else if !errors.Is(err, syscall.ECONNRESET) { // else its reset was faster
		t.Fatal(err)
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(policies.AddressNotListed)) || !strings.Contains(got, "127.0.0.66/32") {
		t.Errorf("refusal record: %s, want %s", got, policies.AddressNotListed)
	}
}

// TestPolicyBetweenDecisionAndLogin takes anna out after the policy has allowed her and before she has a place.
func TestPolicyBetweenDecisionAndLogin(t *testing.T) {
	f := newFixture(t)
	f.start()
	next := f.amended(func(p *policies.Policy, _ *inventory.Fleet) { p.Engineers = p.Engineers[1:] })
	done := make(chan error, 1)
	f.server.sessions.mu.Lock() // she waits for her place
	go func() {
		client, err := f.client("anna", f.anna.Signer(softkey.Always))
		if err == nil {
			client.Close()
		}
		done <- err
	}()
	arrived := running("(*sessions).enter(")
	f.server.ruling.Store(next)
	f.server.sessions.mu.Unlock()
	if err := <-done; err == nil {
		t.Error("logged in by a policy that is no longer in force")
	}
	if !arrived {
		t.Fatal("the login never came to its place")
	}
	if r := f.closing(); r.Outcome != "refused" || r.Reason != policies.UserUnknown {
		t.Errorf("got %s, %s, want refused, %s", r.Outcome, r.Reason, policies.UserUnknown)
	}
	if n := len(f.server.sessions.list()); n != 0 {
		t.Errorf("sessions: got %d, want 0", n)
	}
}

// running waits until a goroutine is in a function.
func running(function string) bool {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	buffer := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-poll.C {
		if strings.Contains(string(buffer[:runtime.Stack(buffer, true)]), function) {
			return true
		}
	}
	return false
}

// TestPolicyBetweenDecisionAndJump takes the grant away after the policy has allowed the target and before it is open.
func TestPolicyBetweenDecisionAndJump(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	var next atomic.Pointer[ruling]
	f.startWith(func(s *Server) {
		s.ownAddresses = func() ([]netip.Addr, error) { // asked for between the two
			if r := next.Load(); r != nil {
				s.ruling.Store(r)
			}
			return nil, nil
		}
	})
	next.Store(f.amended(func(p *policies.Policy, _ *inventory.Fleet) { p.Grants = p.Grants[1:] }))
	client := f.login("anna", f.anna.Signer(softkey.Always))
	if conn, err := client.Dial("tcp", "se-1:22"); err == nil {
		conn.Close()
		t.Error("jumped by a policy that is no longer in force")
	}
	client.Close()
	r := f.closing()
	if len(r.Targets) != 1 || r.Targets[0].Ended != endPolicy || r.Up+r.Down != 0 {
		t.Errorf("targets: got %+v, want one that ended by %s", r.Targets, endPolicy)
	}
}

// TestJumpToNoServersAddress leads a granted server's name to addresses that something answers at, and that are no server's.
func TestJumpToNoServersAddress(t *testing.T) {
	for _, test := range []struct{ name, address string }{
		{"loopback", "127.0.0.1"}, {"this machine", "10.77.0.99"}, {"the bastion", "10.77.0.2"}, {"the controller", "10.77.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.target(test.address+":22", echo)
			f.startWith(func(s *Server) {
				s.ownAddresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.77.0.99")}, nil }
			})
			f.server.ruling.Store(f.amended(func(_ *policies.Policy, fleet *inventory.Fleet) {
				fleet.Servers[0].Address = netip.MustParsePrefix(test.address + "/24")
			}))
			client := f.login("anna", f.anna.Signer(softkey.Always))
			conn, err := client.Dial("tcp", "se-1:22")
			if err == nil {
				conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), string(addressRefused)) {
				t.Errorf("client: got %v, want %s", err, addressRefused)
			}
			client.Close()
			if r := f.closing(); len(r.Targets) != 0 || len(r.Refused) != 1 || r.Refused[0].Reason != addressRefused {
				t.Errorf("targets %+v, refused %+v, want %s", r.Targets, r.Refused, addressRefused)
			}
		})
	}
}

// TestOpeningEndsDuringLogin: a break-glass opening that ends between the decision and the place among the sessions lets nobody in.
func TestOpeningEndsDuringLogin(t *testing.T) {
	f := newFixture(t)
	f.policy.BreakGlass = []policies.BreakGlass{{Name: "glass", Keys: f.policy.Engineers[0].Keys, Servers: []string{"*"}, Ports: []uint16{22}}}
	f.policy.Engineers = f.policy.Engineers[1:]
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := rule(&bundle.Bundle{Policy: f.policy, Inventory: f.fleet}, keys)
	if err != nil {
		t.Fatal(err)
	}
	r.fresh = &confirmation{trust: &trust.Trust{Test: true}}
	now := time.Now()
	r.statements.Openings = []policies.Opening{{ID: "o1", Name: "glass", Expires: now.Add(-time.Second)}}
	written := 0
	s := &Server{log: slog.New(slog.DiscardHandler), audit: appends(func() error { written++; return nil })}
	s.ruling.Store(r)
	here, there := net.Pipe()
	defer there.Close()
	defer here.Close()
	v := &visit{server: s, conn: here, source: netip.MustParseAddrPort("127.0.0.1:1"), began: now, ruling: r}
	if got := v.admitLogin("glass", f.anna.Public(), now.Add(-time.Minute)); got.Allow || got.Reason != policies.BreakGlassSealed {
		t.Errorf("got %+v, want %s", got, policies.BreakGlassSealed)
	}
	if written != 0 || len(s.sessions.list()) != 0 {
		t.Errorf("%d records, %d sessions", written, len(s.sessions.list()))
	}
}
