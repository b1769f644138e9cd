package bastion

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/testenv/softkey"
)

// TestReloadDuringLogin decides again and again while a client, denied because nothing can be written down, tries again and
// again. It shows a race only under the race detector.
func TestReloadDuringLogin(t *testing.T) {
	f := newFixture(t)
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := rule(&bundle.Bundle{Policy: f.policy, Inventory: f.fleet}, keys)
	if err != nil {
		t.Fatal(err)
	}
	r.fresh = &confirmation{trust: &trust.Trust{Test: true}}
	s := &Server{log: slog.New(slog.DiscardHandler)}
	s.ruling.Store(r)
	here, there := net.Pipe()
	defer there.Close()
	defer here.Close()
	v := &visit{server: s, conn: here, source: netip.MustParseAddrPort("127.0.0.1:1"), began: time.Now(), ruling: r}

	deciding := &sync.WaitGroup{}
	s.audit = appends(func() error {
		for range 4 {
			deciding.Go(func() { s.sessions.decideAgain(r, time.Now()) })
			runtime.Gosched()
		}
		return io.ErrShortWrite
	})
	for range 500 {
		if got := v.admitLogin("anna", f.anna.Public(), time.Now()); got.Allow || got.Reason != auditUnavailable {
			t.Fatalf("got %+v, want %s", got, auditUnavailable)
		}
	}
	deciding.Wait()
	if s.sessions.from(network(v.source.Addr())) || len(s.sessions.list()) != 0 {
		t.Errorf("denied logins are still among the sessions: %v", s.sessions.list())
	}
	if here.SetDeadline(time.Now()) != nil || errors.Is(v.conn.SetDeadline(time.Now()), net.ErrClosed) {
		t.Error("a connection was cut though its login is allowed")
	}
}

// appends is an audit log that does what the test wants.
type appends func() error

func (a appends) Append(string, any) error        { return a() }
func (a appends) AppendOpening(string, any) error { return a() }
func (a appends) AppendRefused(string, any) error { return a() }
func (a appends) Healthy() error                  { return nil }

// TestNewLimitsReachWhoIsIn: channels, idle and session time of a new policy count for sessions that are older.
func TestNewLimitsReachWhoIsIn(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	conn, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Version++
	f.policy.SSH.MaxChannels = 1
	f.newPolicy()
	refusedWith(t, anna, "se-1:22", channelsFull)
	conn.Close()
	f.policy.Version++
	f.policy.SSH.IdleTimeout = policies.Duration(time.Second)
	f.writeBundle(2)
	for range 2 {
		if r := f.closing(); r.Ended != endIdle {
			t.Errorf("got %+v, want %s", r, endIdle)
		}
	}
	anna.Wait()
	bert.Wait()
	f.policy.Version++
	f.policy.SSH.IdleTimeout = 0
	f.newPolicy()
	f.login("anna", f.anna.Signer(softkey.Always))
	f.policy.Version++
	f.policy.SSH.SessionLimit = policies.Duration(time.Second)
	f.writeBundle(2)
	if r := f.closing(); r.Ended != endLimit {
		t.Errorf("got %+v, want %s", r, endLimit)
	}
}

// TestEnter fills the places of people and of robots, and asks for one more of each.
func TestEnter(t *testing.T) {
	limits := policies.Limits{MaxSessions: 2, MaxPerEngineer: 1, MaxRobots: 2, MaxPerRobot: 1}
	var s sessions
	for _, tt := range []struct {
		name string
		kind policies.Kind
		want policies.Reason
	}{
		{"deploy", policies.KindRobot, ""}, {"deploy", policies.KindRobot, robotFull}, {"probe", policies.KindRobot, ""}, {"sync", policies.KindRobot, robotsFull},
		{"anna", policies.KindEngineer, ""}, {"anna", policies.KindEngineer, engineerFull}, {"bert", policies.KindBreakGlass, ""}, {"cleo", policies.KindEngineer, sessionsFull},
	} {
		if got := s.enter(new(visit), policies.Login{User: tt.name, Source: netip.MustParseAddr("192.0.2.1")}, tt.kind, limits); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.kind, tt.name, got, tt.want)
		}
	}
}
