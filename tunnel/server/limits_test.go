package server

import (
	"net/netip"
	"testing"
	"time"

	"mayfly/tunnel/device"
)

func TestAllowance(t *testing.T) {
	s := newSources(MaxConnections, MaxConnectionsPerSource)
	a, b := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.8")
	for i := range RegisterBurst {
		if !s.allow(a, start) {
			t.Fatalf("registration %d is refused", i+1)
		}
	}
	if s.allow(a, start) || !s.allow(b, start) {
		t.Error("want the one source at its limit and not the other")
	}
	if !s.allow(a, start.Add(RegisterEvery)) || s.allow(a, start.Add(RegisterEvery)) {
		t.Error("want one more after RegisterEvery")
	}
	s.sweep(start.Add(2 * RegisterBurst * RegisterEvery))
	if len(s.table) != 0 {
		t.Errorf("%d sources remembered, want none", len(s.table))
	}
}

func TestConnections(t *testing.T) {
	s := newSources(MaxConnections, MaxConnectionsPerSource)
	a := netip.MustParseAddr("2001:db8::1")
	neighbour := netip.MustParseAddr("2001:db8::ffff") // the same /64
	for range MaxConnectionsPerSource {
		if !s.connect(a, start) {
			t.Fatal("refused too early")
		}
	}
	if s.connect(neighbour, start) {
		t.Error("a /64 is one source")
	}
	s.disconnect(a)
	if !s.connect(neighbour, start) {
		t.Error("a place that was given back stays taken")
	}
	for i := 0; s.open < MaxConnections; i++ {
		if !s.connect(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), start) {
			t.Fatal("refused under the total")
		}
	}
	if s.connect(netip.MustParseAddr("192.0.2.1"), start) {
		t.Error("over the total")
	}
}

func TestSourcesAreBounded(t *testing.T) {
	s := newSources(MaxConnections, MaxConnectionsPerSource)
	for i := range MaxSources {
		if !s.allow(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), start) {
			t.Fatal("refused too early")
		}
	}
	stranger := netip.MustParseAddr("192.0.2.1")
	if s.allow(stranger, start) {
		t.Error("the table grows over its bound")
	}
	if !s.allow(stranger, start.Add(RegisterEvery)) || len(s.table) > MaxSources {
		t.Error("want room again when the others have their whole allowance")
	}
	if s.connect(netip.Addr{}, start.Add(time.Hour)) == false {
		t.Error("an unknown source is a source like another")
	}
}

// Every client that a server has addresses for holds a notice request nearly all the time, and no client may take the others' places.
func TestNoticesHaveRoomForEveryClient(t *testing.T) {
	network := netip.MustParsePrefix("10.64.0.0/20")
	s := insideSources(network)
	greedy := netip.MustParseAddr("10.64.15.254")
	taken := 0
	for s.connect(greedy, start) {
		taken++
	}
	if taken < 2 || taken > MaxNoticesPerClient {
		t.Errorf("one client has %d connections, want from 2 to %d", taken, MaxNoticesPerClient)
	}
	for i := range newPool(network).capacity() {
		if a := netip.AddrFrom4([4]byte{10, 64, byte(i >> 8), byte(i)}); !s.connect(a, start) {
			t.Fatalf("client %d of a full server cannot ask for notices", i+1)
		}
	}
}

// TestSessionsOfASource fills one source's sessions: another still has its own, and an ended session gives its place back.
func TestSessionsOfASource(t *testing.T) {
	s := newSources(MaxConnections, MaxConnectionsPerSource)
	a, neighbour := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2") // of one /64
	peers, _ := table("10.64.1.0/24")
	for i := range MaxSessionsPerSource {
		left, ok := s.hold(a, at(0))
		if !ok {
			t.Fatalf("session %d is refused, want %d", i+1, MaxSessionsPerSource)
		}
		if _, _, err := peers.register(device.Key{byte(i + 1)}, left, at(0)); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := s.hold(neighbour, at(0)); ok {
		t.Error("one source has more than its sessions")
	}
	if left, ok := s.hold(netip.MustParseAddr("192.0.2.1"), at(0)); !ok {
		t.Error("another source is refused as well")
	} else {
		left()
	}
	s.sweep(at(3600))
	if _, ok := s.hold(neighbour, at(3600)); ok {
		t.Error("a source with sessions was forgotten")
	}
	if _, err := peers.sweep(start.Add(PeerExpiry)); err != nil {
		t.Fatal(err)
	}
	if left, ok := s.hold(neighbour, at(3600)); !ok {
		t.Error("forgotten sessions still take a source's places")
	} else {
		left()
	}
	s.sweep(at(3600))
	if len(s.table) != 0 {
		t.Errorf("%d sources remembered, want none", len(s.table))
	}
}
