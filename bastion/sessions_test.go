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

	"mayfly/policies/bundle"
	"mayfly/policies/trust"
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
