package bastion

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// TestVictim goes through who gives up a place when all are taken.
func TestVictim(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	type held struct {
		from  string
		age   time.Duration
		stage int32
	}
	for _, test := range []struct {
		name     string
		held     []held
		familiar []string
		want     int
	}{
		{"the network that holds most", []held{{"10.0.0.1", 9, 0}, {"10.0.0.2", 2, 0}, {"10.0.0.2", 1, 0}}, nil, 1},
		{"most, even with a login and a signature", []held{{"10.0.0.1", 9, 0}, {"10.0.0.2", 2, stageSigning}, {"10.0.0.2", 1, stageSigning}}, []string{"10.0.0.2"}, 1},
		{"not where somebody logged in", []held{{"10.0.0.1", 9, 0}, {"10.0.0.2", 2, 0}}, []string{"10.0.0.1"}, 1},
		{"nor a signature in progress", []held{{"10.0.0.1", 9, stageSigning}, {"10.0.0.2", 2, 0}}, nil, 1},
		{"a login counts more than a signature", []held{{"10.0.0.1", 1, 0}, {"10.0.0.2", 9, stageSigning}}, []string{"10.0.0.1"}, 1},
		{"the one that came less far", []held{{"10.0.0.1", 9, stageExchanged}, {"10.0.0.2", 2, stageArrived}}, nil, 1},
		{"the oldest", []held{{"10.0.0.1", 2, 0}, {"10.0.0.2", 9, 0}, {"10.0.0.3", 3, 0}}, nil, 1},
		{"the oldest in a network", []held{{"10.0.0.1", 2, 0}, {"10.0.0.1", 9, 0}, {"10.0.0.3", 30, 0}}, nil, 1},
	} {
		var s startups
		limits := policies.Limits{MaxStartups: len(test.held)}
		var places []*place
		for _, h := range test.held {
			p, evicted, refused := s.enter(nil, network(netip.MustParseAddr(h.from)), limits, 8, now.Add(-h.age*time.Second))
			if evicted != nil || refused != "" {
				t.Fatalf("%s: %v %s", test.name, evicted, refused)
			}
			p.reached(h.stage)
			places = append(places, p)
		}
		for _, from := range test.familiar {
			s.loggedIn(network(netip.MustParseAddr(from)), now.Add(-time.Hour))
		}
		mine, evicted, refused := s.enter(nil, netip.MustParsePrefix("10.9.9.9/32"), limits, 8, now)
		if evicted != places[test.want] || refused != "" || mine == nil {
			t.Errorf("%s: evicted %+v, want place %d; refused %q", test.name, evicted, test.want, refused)
		}
		if evicted != nil && !evicted.evicted.Load() {
			t.Errorf("%s: the victim does not know", test.name)
		}
		if len(s.all) != len(test.held) {
			t.Errorf("%s: %d places, want %d", test.name, len(s.all), len(test.held))
		}
	}
}

// TestStartupsKeepCount enters, loses and leaves places in every order, and ends with nothing.
func TestStartupsKeepCount(t *testing.T) {
	var s startups
	now := time.Now()
	limits := policies.Limits{MaxStartups: 10}
	var all []*place
	for i := range 300 {
		from := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 7)}), 32)
		p, _, refused := s.enter(nil, from, limits, 3, now.Add(time.Duration(i)))
		if refused == "" {
			all = append(all, p)
		}
		if i%3 == 0 && len(all) > 0 {
			s.leave(all[i%len(all)])
		}
		if i%11 == 0 && len(all) > 0 {
			s.move(all[len(all)-1], netip.MustParsePrefix("10.1.0.0/32"), 3, now)
		}
		sum := 0
		for _, n := range s.bySource {
			sum += n.places
		}
		if sum != len(s.all) || len(s.all) > limits.MaxStartups {
			t.Fatalf("%d places, counted %d", len(s.all), sum)
		}
	}
	for _, p := range all {
		s.leave(p)
		s.leave(p)
	}
	if len(s.all) != 0 || len(s.bySource) != 0 {
		t.Errorf("left over: %d, %v", len(s.all), s.bySource)
	}
}

func TestFamiliarIsBounded(t *testing.T) {
	var s startups
	now := time.Now()
	for i := range maxFamiliar + 10 {
		s.loggedIn(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), now.Add(time.Duration(i)))
	}
	if len(s.familiar) != maxFamiliar || s.isFamiliar(netip.MustParsePrefix("10.0.0.0/32"), now) || !s.isFamiliar(netip.MustParsePrefix("10.0.1.0/32"), now) {
		t.Errorf("%d networks remembered, want the newest %d", len(s.familiar), maxFamiliar)
	}
}

// greeted connects and waits for the bastion's version: the connection has its place.
func (f *fixture) greeted(source string) (net.Conn, error) {
	conn, err := dialFrom(f.t.Context(), source, f.address)
	if err != nil {
		if !errors.Is(err, syscall.ECONNRESET) {
			f.t.Fatal(err)
		}
		return nil, err
	}
	f.t.Cleanup(func() { conn.Close() })
	_, err = conn.Read(make([]byte, 8))
	return conn, err
}

// TestSourceStartups fills one source's places with connections that have spoken: its next one is refused, another source's is not.
func TestSourceStartups(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.MaxPerSource = 2
	f.writeBundle(2)
	f.start()
	for range 2 {
		conn, err := f.greeted("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("SSH-2.0-slow\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.greeted("127.0.0.1"); err == nil {
		t.Error("the third connection was greeted")
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(sourceStartupsFull)) || !strings.Contains(got, "127.0.0.1/32") {
		t.Errorf("refusal record: %s, want %s", got, sourceStartupsFull)
	}
	if _, err := f.greeted("127.0.0.2"); err != nil {
		t.Errorf("another source: %v", err)
	}
}

// TestSilentGiveWay has a source hold all its places in silence: its own next connection gets the oldest one's.
func TestSilentGiveWay(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.MaxPerSource = 2
	f.writeBundle(2)
	f.start()
	for range 2 {
		if _, err := f.greeted("127.0.0.1"); err != nil {
			t.Fatal(err)
		}
	}
	f.server.startups.mu.Lock()
	for _, p := range f.server.startups.all {
		p.since = p.since.Add(-silentFor)
	}
	f.server.startups.mu.Unlock()
	f.login("anna", f.anna.Signer(softkey.Always))
	if r := f.closing(); r.Reason != evictedReason || r.Outcome != "refused" {
		t.Errorf("record: %+v, want %s", r, evictedReason)
	}
}

// TestHalfOpenKeepNobodyOut keeps far more half-open connections coming than there are places, from one source and from many, and logs
// in meanwhile. testenv bench bastion measures the same with 10,000.
func TestHalfOpenKeepNobodyOut(t *testing.T) {
	for _, sources := range []int{1, 200} {
		t.Run(fmt.Sprint(sources), func(t *testing.T) {
			f := newFixture(t)
			f.policy.SSH.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			f.policy.SSH.MaxStartups = 128
			f.writeBundle(2)
			f.start()
			ctx, stop := context.WithCancel(t.Context())
			var flood sync.WaitGroup
			defer flood.Wait()
			defer stop()
			flood.Go(func() { // nobody reads these records, and the test's log waits for a reader
				for {
					select {
					case <-f.spy.entries:
					case <-ctx.Done():
						return
					}
				}
			})
			full := make(chan struct{}, 1)
			flood.Go(func() {
				var held []net.Conn
				for i := 0; ctx.Err() == nil; i++ {
					if conn, err := dialFrom(ctx, fmt.Sprintf("127.1.%d.%d", i%sources/250, i%sources%250+1), f.address); err == nil {
						held = append(held, conn)
					}
					if len(held) > 500 {
						held[0].Close()
						held = held[1:]
					}
					if i == 400 {
						full <- struct{}{}
					}
				}
				for _, conn := range held {
					conn.Close()
				}
			})
			<-full
			for range 3 {
				client, err := f.client("anna", f.anna.Signer(softkey.Always))
				if err != nil {
					t.Fatal(err)
				}
				client.Close()
			}
		})
	}
}
