package device

import (
	"net/netip"
	"testing"
	"time"
)

func TestStateReader(t *testing.T) {
	listing := "private_key=aa\nlisten_port=51820\nfwmark=1\n" +
		"public_key=0101010101010101010101010101010101010101010101010101010101010101\nendpoint=192.0.2.9:5\n" +
		"last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=7\nrx_bytes=8\nallowed_ip=10.0.0.2/32\n" +
		"public_key=0202020202020202020202020202020202020202020202020202020202020202\nlast_handshake_time_sec=0\nrx_bytes=9\n"
	r := stateReader{states: map[Key]State{}}
	for _, c := range []byte(listing) { // in the smallest pieces
		if _, err := r.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
	}
	one, two := Key{}, Key{}
	for i := range one {
		one[i], two[i] = 1, 2
	}
	if len(r.states) != 2 || r.states[one] != (State{LastHandshake: time.Unix(1700000000, 0), Received: 8, Sent: 7}) ||
		r.states[two] != (State{Received: 9}) {
		t.Errorf("got %+v", r.states)
	}
}

func TestMeter(t *testing.T) {
	const window = 10 * time.Second
	start := time.Unix(1e9, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var m Meter
	m.Note(State{}, at(0), window)
	for s := 1; s <= 30; s++ { // a keepalive of 32 bytes every second is more than WireGuard sends
		m.Note(State{Received: uint64(32 * s)}, at(s), window)
	}
	if got := m.IdleFor(at(30)); got != 30*time.Second {
		t.Errorf("housekeeping alone: idle for %s, want 30s", got)
	}
	if got := m.SilentFor(at(31)); got != time.Second {
		t.Errorf("silent for %s, want 1s", got)
	}
	m.Note(State{Received: 960, Sent: 1500}, at(31), window)
	if got := m.IdleFor(at(31)); got != 0 {
		t.Errorf("after a packet: idle for %s, want 0", got)
	}
	m.Note(State{Received: 960, Sent: 1500}, at(45), window)
	if got := m.IdleFor(at(45)); got != 14*time.Second {
		t.Errorf("later: idle for %s, want 14s", got)
	}
}

func TestRefusesNothing(t *testing.T) {
	if _, err := New(Config{Name: "never"}); err == nil {
		t.Error("a device without a key")
	}
	d := &Device{}
	if err := d.AddPeer(Peer{PublicKey: NewPresharedKey()}); err == nil {
		t.Error("a peer without an inner address")
	}
	if err := d.AddPeer(Peer{Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}}); err == nil {
		t.Error("a peer without a key")
	}
}
