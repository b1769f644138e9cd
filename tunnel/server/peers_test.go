package server

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// planeOf is a data plane that only keeps the books.
type planeOf struct {
	states map[device.Key]device.State
	fail   error
}

func (p *planeOf) AddPeer(d device.Peer) error {
	if p.fail != nil {
		return p.fail
	}
	p.states[d.PublicKey] = device.State{}
	return nil
}

func (p *planeOf) RemovePeer(k device.Key) error { delete(p.states, k); return p.fail }

func (p *planeOf) Peers() (map[device.Key]device.State, error) {
	seen := map[device.Key]device.State{}
	for k, s := range p.states {
		seen[k] = s
	}
	return seen, nil
}

var start = time.Unix(1e9, 0)

func at(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }

func table(network string) (*peers, *planeOf) {
	p := &planeOf{states: map[device.Key]device.State{}}
	return newPeers(p, netip.MustParsePrefix(network)), p
}

// stay is for tests that count no sources.
func stay() {}

func reason(err error) wire.Reason {
	var r *wire.Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

func TestPool(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.64.1.0/28"))
	seen := map[netip.Addr]bool{}
	for range p.capacity() {
		a, ok := p.take()
		if !ok || seen[a] || !p.network.Contains(a) {
			t.Fatalf("got %s, %v", a, ok)
		}
		seen[a] = true
	}
	for _, never := range []string{"10.64.1.0", "10.64.1.1", "10.64.1.15"} {
		if seen[netip.MustParseAddr(never)] {
			t.Errorf("%s was given away", never)
		}
	}
	if len(seen) != 13 {
		t.Errorf("%d addresses of a /28, want 13", len(seen))
	}
	if a, ok := p.take(); ok {
		t.Errorf("one more: %s", a)
	}
	back := netip.MustParseAddr("10.64.1.9")
	p.free(back)
	if a, ok := p.take(); !ok || a != back {
		t.Errorf("after one came back: got %s, %v", a, ok)
	}
}

func TestPoolIsRandom(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.64.0.0/16"))
	inOrder := 0
	last, _ := p.take()
	for range 50 {
		a, _ := p.take()
		if a == last.Next() {
			inOrder++
		}
		last = a
	}
	if inOrder > 5 {
		t.Errorf("%d of 50 addresses follow the one before", inOrder)
	}
	if got := p.capacity(); got != MaxPeers {
		t.Errorf("a /16 holds %d sessions, want the bound %d", got, MaxPeers)
	}
}

func TestRegisterAndRelease(t *testing.T) {
	peers, plane := table("10.64.1.0/29")
	key := device.Key{1}
	address, preshared, err := peers.register(key, stay, at(0))
	if err != nil || preshared.IsZero() {
		t.Fatalf("got %v", err)
	}
	if _, _, err := peers.register(key, stay, at(0)); reason(err) != wire.KeyInUse {
		t.Errorf("the same key: got %v", err)
	}
	_, second, err := peers.register(device.Key{2}, stay, at(0))
	if err != nil || second == preshared {
		t.Errorf("two sessions share a preshared key, or %v", err)
	}
	if err := peers.release(key, address.Next(), at(1)); reason(err) != wire.NotYours {
		t.Errorf("released by another: got %v", err)
	}
	if err := peers.release(key, address, at(1)); err != nil {
		t.Error(err)
	}
	if got := peers.count(); got != 1 {
		t.Errorf("%d sessions, want 1", got)
	}
	sweep(t, peers, at(2))
	if _, there := plane.states[key]; !there {
		t.Error("forgotten before its answer can have arrived")
	}
	sweep(t, peers, at(3))
	if _, there := plane.states[key]; there || peers.knows(address) {
		t.Error("a released peer is still known")
	}
}

func TestRefusesWhatItCannot(t *testing.T) {
	peers, plane := table("10.64.1.0/29")
	plane.fail = errors.New("no")
	for range 20 { // an address that the device refused is free again
		if _, _, err := peers.register(device.Key{1}, stay, at(0)); err == nil || reason(err) != "" {
			t.Fatalf("got %v, want the device's own error", err)
		}
	}
	plane.fail = nil
	for i := range 5 {
		if _, _, err := peers.register(device.Key{byte(i + 1)}, stay, at(0)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := peers.register(device.Key{9}, stay, at(0)); reason(err) != wire.Full {
		t.Errorf("got %v, want full", err)
	}
	peers.close()
	if _, _, err := peers.register(device.Key{9}, stay, at(0)); reason(err) != wire.Draining {
		t.Errorf("got %v, want draining", err)
	}
}

func TestExpiry(t *testing.T) {
	peers, plane := table("10.64.1.0/29")
	never, once := device.Key{1}, device.Key{2}
	for _, k := range []device.Key{never, once} {
		if _, _, err := peers.register(k, stay, at(0)); err != nil {
			t.Fatal(err)
		}
	}
	plane.states[once] = device.State{LastHandshake: at(100)}
	limit := int(PeerExpiry / time.Second)
	for _, c := range []struct{ second, want int }{{limit - 1, 2}, {limit, 1}, {limit + 99, 1}, {limit + 100, 0}} {
		sweep(t, peers, at(c.second))
		if got := len(plane.states); got != c.want {
			t.Errorf("after %d s: %d peers, want %d", c.second, got, c.want)
		}
	}
}

func TestDrain(t *testing.T) {
	for _, c := range []struct {
		name     string
		informed bool
		traffic  func(s int) uint64 // bytes by that second
		want     int                // the second at which it is done
		forced   bool
	}{
		{"a stock client that keeps alive", false, func(s int) uint64 { return uint64(s/25) * 64 }, 11, false},
		{"a stock client that works for 20 s", false, func(s int) uint64 { return uint64(min(s, 20)) * 2000 }, 30, false},
		{"a stock client that never stops", false, func(s int) uint64 { return uint64(s) * 2000 }, 101, true},
		{"an informed client that is idle", true, func(s int) uint64 { return uint64(s/25) * 64 }, 101, true},
		{"an informed client that is gone", true, func(int) uint64 { return 0 }, 61, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			peers, plane := table("10.64.1.0/29")
			key := device.Key{1}
			address, _, err := peers.register(key, stay, at(0))
			if err != nil {
				t.Fatal(err)
			}
			d := newDrain()
			if d.look(0, at(0)) {
				t.Fatal("done before it began")
			}
			peers.close()
			d.begin(100*time.Second, at(1))
			if c.informed {
				peers.inform(address)
			}
			for s := 1; s <= 200; s++ {
				plane.states[key] = device.State{Received: c.traffic(s), LastHandshake: at(s)}
				if d.look(sweep(t, peers, at(s)), at(s)) {
					if _, _, forced := d.state(); s != c.want || forced != c.forced {
						t.Errorf("done after %d s, forced %v; want %d, %v", s, forced, c.want, c.forced)
					}
					return
				}
			}
			t.Error("never done")
		})
	}
}

func TestDrainOrders(t *testing.T) {
	d := newDrain()
	if got := d.notice(at(0)); got.Draining {
		t.Errorf("before: %+v", got)
	}
	d.begin(60*time.Second, at(0))
	d.begin(90*time.Second, at(1)) // may not lengthen
	if got := d.notice(at(10)); !got.Draining || got.RemainingSeconds != 50 || !got.Deadline.Equal(at(60)) {
		t.Errorf("got %+v", got)
	}
	d.begin(10*time.Second, at(10)) // may shorten
	if got := d.notice(at(10)); got.RemainingSeconds != 10 {
		t.Errorf("got %+v", got)
	}
	if d.look(1, at(19)) || !d.look(1, at(20)) || d.look(0, at(21)) {
		t.Error("want done once, at the deadline")
	}
	select {
	case <-d.begun:
	default:
		t.Error("nobody is told")
	}
}

func sweep(t *testing.T, p *peers, now time.Time) int {
	t.Helper()
	n, err := p.sweep(now)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A session that the data plane does not have, for whatever reason, must neither hold its address for good nor a drain.
func TestSweepForgetsWhatTheDataPlaneLacks(t *testing.T) {
	peers, plane := table("10.64.1.0/24")
	key := device.Key{9}
	if _, _, err := peers.register(key, stay, at(0)); err != nil {
		t.Fatal(err)
	}
	delete(plane.states, key)
	if got := sweep(t, peers, at(1)); got != 1 {
		t.Errorf("a second after: got %d in flight, want 1: it may have been added since", got)
	}
	if got := sweep(t, peers, at(int(PeerExpiry/time.Second))); got != 0 || peers.count() != 0 {
		t.Errorf("at its expiry: got %d in flight, %d sessions, want none", got, peers.count())
	}
}
