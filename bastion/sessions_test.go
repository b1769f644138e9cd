package bastion

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"mayfly/policies/bundle"
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
	s := &Server{log: slog.New(slog.DiscardHandler), audit: &spy{fail: io.ErrShortWrite}}
	s.ruling.Store(r)
	here, there := net.Pipe()
	defer there.Close()
	defer here.Close()
	v := &visit{server: s, conn: here, source: netip.MustParseAddrPort("127.0.0.1:1"), began: time.Now(), ruling: r}

	stop := make(chan struct{})
	var deciding sync.WaitGroup
	deciding.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.sessions.decideAgain(r, time.Now())
			}
		}
	})
	for range 2000 {
		if got := v.admitLogin("anna", f.anna.Public(), time.Now()); got.Allow || got.Reason != auditUnavailable {
			t.Fatalf("got %+v, want %s", got, auditUnavailable)
		}
	}
	close(stop)
	deciding.Wait()
	if s.sessions.from(network(v.source.Addr())) || len(s.sessions.list()) != 0 {
		t.Errorf("denied logins are still among the sessions: %v", s.sessions.list())
	}
	if here.SetDeadline(time.Now()) != nil || errors.Is(v.conn.SetDeadline(time.Now()), net.ErrClosed) {
		t.Error("a connection was cut though its login is allowed")
	}
}
