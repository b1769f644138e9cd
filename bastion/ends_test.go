package bastion

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/policies"
	"mayfly/policies/bundle"
)

// TestWindowEnds: what a window let in is cut at its end, to the moment.
func TestWindowEnds(t *testing.T) {
	f := newFixture(t)
	f.policy.Expires = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	f.policy.Grants[0].Windows = []policies.Window{{Days: []string{"sat"}, From: "00:00", To: "00:01"}} // where synctest's time begins
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := rule(&bundle.Bundle{Policy: f.policy, Inventory: f.fleet}, keys)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &Server{log: slog.New(slog.DiscardHandler), audit: appends(func() error { return nil })}
		s.ruling.Store(r)
		here, there := net.Pipe()
		defer there.Close()
		defer here.Close()
		v := &visit{server: s, conn: here, source: netip.MustParseAddrPort("127.0.0.1:1"), began: time.Now(), ruling: r,
			login: policies.Login{Source: netip.MustParseAddr("127.0.0.1"), User: "anna", Key: f.anna.Authorized()}}
		if full := s.sessions.enter(v, v.login, policies.KindEngineer, r.limits); full != "" {
			t.Fatal(full)
		}
		target, stop := context.WithCancel(t.Context())
		defer stop()
		v.opening(&opened{target: policies.Target{Server: "se-1", Port: 22}, address: netip.MustParseAddrPort("10.77.0.11:22"), began: time.Now(), cancel: stop})
		watching, end := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() { s.watchStatements(watching) })
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if target.Err() != nil {
			t.Error("cut before the window's end")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if target.Err() == nil {
			t.Error("not cut at the window's end")
		}
		if v.reason() != policies.Allowed {
			t.Errorf("the session was cut: %s", v.reason())
		}
		end()
		watch.Wait()
	})
}

// TestPolicyEnds: that nobody gets in any more is an error that is said once, in the log as well, at the moment of the policy's end.
func TestPolicyEnds(t *testing.T) {
	f := newFixture(t)
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Minute)
		f.policy.Expires = end
		r, err := rule(&bundle.Bundle{Version: 3, Expires: end, Policy: f.policy, Inventory: f.fleet}, keys)
		if err != nil {
			t.Fatal(err)
		}
		var out safeBuffer
		records := 0
		s := &Server{log: slog.New(slog.NewTextHandler(&out, nil)), audit: appends(func() error { records++; return nil })}
		s.ruling.Store(r)
		watching, stop := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() { s.watchStatements(watching) })
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if early := out.String(); early != "" {
			t.Errorf("too early: %s", early)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		watch.Wait()
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "the policy has expired: nobody gets in") || records != 1 {
			t.Errorf("%d records, and said: %s", records, got)
		}
	})
}

// TestCertificateEnds: a session is cut when the certificate ends that it came in by, also one that began after the watch last looked.
func TestCertificateEnds(t *testing.T) {
	f := newFixture(t)
	f.policy.Expires = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	authority := authorized(newSigner(t).PublicKey())
	f.policy.Certificates.Authorities = []string{authority}
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := rule(&bundle.Bundle{Policy: f.policy, Inventory: f.fleet}, keys)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &Server{log: slog.New(slog.DiscardHandler), audit: appends(func() error { return nil })}
		s.ruling.Store(r)
		watching, end := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() { s.watchStatements(watching) })
		synctest.Wait()
		for _, life := range []time.Duration{statementPoll / 5, 5 * time.Second, 90 * time.Second} {
			// A certificate's times are whole seconds.
			began := time.Now().Truncate(time.Second)
			time.Sleep(time.Until(began.Add(2*time.Second - min(life, time.Second))))
			expires := time.Now().Add(life)
			c := &policies.Certificate{Authority: authority, Signed: true, User: true, Principals: []string{"anna"},
				ValidAfter: uint64(began.Unix()), ValidBefore: uint64(expires.Unix()),
				Options: map[string]string{"source-address": "127.0.0.1/32"}, Extensions: map[string]string{"permit-port-forwarding": ""}}
			here, there := net.Pipe()
			v := &visit{server: s, conn: here, source: netip.MustParseAddrPort("127.0.0.1:1"), began: time.Now(), ruling: r,
				login: policies.Login{Source: netip.MustParseAddr("127.0.0.1"), User: "anna", Key: f.anna.Authorized(), Certificate: c}}
			if d := v.decide(r, v.login, time.Now()); !d.Allow || !c.End().Equal(expires) {
				t.Fatalf("%+v, ends %s, want %s", d, c.End(), expires)
			}
			if full := s.sessions.enter(v, v.login, policies.KindEngineer, r.limits); full != "" {
				t.Fatal(full)
			}
			time.Sleep(life - time.Nanosecond)
			synctest.Wait()
			if v.reason() != policies.Allowed {
				t.Errorf("%s: cut before the certificate's end", life)
			}
			time.Sleep(statementPoll)
			synctest.Wait()
			if v.reason() != policies.CertificateExpired {
				t.Errorf("%s: %s at %s after the certificate's end", life, v.reason(), time.Since(expires))
			}
			s.sessions.leave(v)
			there.Close()
			here.Close()
		}
		end()
		watch.Wait()
	})
}
