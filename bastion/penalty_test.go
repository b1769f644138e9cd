package bastion

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

func TestPenalties(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	here, there := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8:1:2::/64")
	after := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var p penalties
	check := func(seconds int, from netip.Prefix, want bool) {
		t.Helper()
		if _, got := p.refused(from, after(seconds)); got != want {
			t.Errorf("after %d s %s: refused %v, want %v", seconds, from, got, want)
		}
	}
	p.add(here, badSignature, start) // 5
	p.add(here, badSignature, start) // 5 + 10
	check(0, here, false)
	p.add(here, badSignature, start) // 5 + 10 + 20
	check(0, here, true)
	check(0, there, false)
	check(34, here, true)
	check(35, here, false)
	// It grows, and is capped.
	p.add(here, badSignature, after(40)) // 40 s
	check(40, here, true)
	check(79, here, true)
	check(80, here, false)
	for range 20 {
		p.add(here, badSignature, after(100))
	}
	if until, _ := p.refused(here, after(100)); until != after(100).Add(penaltyMost) {
		t.Errorf("refused until %v, want %v", until, after(100).Add(penaltyMost))
	}
	// A login clears it; what is long past is forgotten.
	p.clear(here)
	check(101, here, false)
	p.add(here, leftEarly, after(102))
	check(102, here, false)
	for range 4 {
		p.add(there, methodPassword, after(200))
	}
	check(200, there, true)
	end := after(200).Add(penaltyMost + penaltyMemory)
	p.add(there, methodPassword, end)
	if got := p.bySource[there].failures; got != 1 {
		t.Errorf("%d failures remembered after %v, want 1", got, penaltyMost+penaltyMemory)
	}
	// What is nobody's fault costs nothing.
	var none penalties
	for _, why := range []policies.Reason{evictedReason, startupsFull, sessionsFull, auditUnavailable, policies.PolicyExpired, certificateExpired} {
		none.add(here, why, start)
	}
	if len(none.bySource) != 0 {
		t.Errorf("penalties: %v", none.bySource)
	}
}

// TestPenaltyDecay sees rare failures never add up.
func TestPenaltyDecay(t *testing.T) {
	var p penalties
	here, now := netip.MustParsePrefix("192.0.2.1/32"), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 100 {
		p.add(here, badSignature, now)
		if _, refused := p.refused(here, now); refused {
			t.Fatal("refused for a failure a quarter of an hour")
		}
		now = now.Add(15 * time.Minute)
	}
}

func TestPenaltiesAreBounded(t *testing.T) {
	var p penalties
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	worst := netip.MustParsePrefix("192.0.2.1/32")
	for range 5 {
		p.add(worst, methodPassword, now)
	}
	for i := range maxPenalties + 3*penaltySweep {
		a := [16]byte{0: 0x20, 1: 1, 4: byte(i >> 16), 5: byte(i >> 8), 6: byte(i)}
		p.add(netip.PrefixFrom(netip.AddrFrom16(a), 64), leftEarly, now)
		if len(p.bySource) > maxPenalties {
			t.Fatalf("%d sources, want at most %d", len(p.bySource), maxPenalties)
		}
	}
	if _, refused := p.refused(worst, now); !refused {
		t.Error("the worst was forgotten before those with less time left")
	}
	if list, all := p.list(10, now); len(list) != 1 || all != 1 || list[0].Network != worst.String() || list[0].Why != methodPassword {
		t.Errorf("listed: %+v of %d", list, all)
	}
}

// fail makes a source collect more than is borne.
func (f *fixture) fail(source string) {
	for range 6 {
		f.server.punish(f.server.ruling.Load(), netip.MustParseAddr(source), methodPassword, time.Now())
	}
}

// TestPenalisedSource sees a source with a penalty refused before the handshake, and nobody else, and not while somebody is in.
func TestPenalisedSource(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.PenaltyExempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}
	f.writeBundle(2)
	f.start()
	f.fail("127.0.0.1")
	if _, err := f.greeted("127.0.0.1"); err == nil {
		t.Error("greeted in spite of its penalty")
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(sourcePenalised)) || !strings.Contains(got, "127.0.0.1/32") {
		t.Errorf("refusal record: %s, want %s", got, sourcePenalised)
	}
	if _, err := f.greeted("127.0.0.2"); err != nil {
		t.Errorf("another source: %v", err)
	}
	f.fail("127.0.0.3")
	if _, err := f.greeted("127.0.0.3"); err != nil {
		t.Errorf("an exempt source: %v", err)
	}

	f.server.penalties.clear(network(netip.MustParseAddr("127.0.0.1")))
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	f.fail("127.0.0.1")
	if _, err := f.greeted("127.0.0.1"); err != nil {
		t.Errorf("somebody is in from there: %v", err)
	}
	anna.Close()
}

// empty waits until nobody is in: a session leaves after its closing record.
func (f *fixture) empty() {
	f.t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); len(f.server.sessions.list()) > 0; <-poll.C {
		if time.Now().After(deadline) {
			f.t.Fatal("somebody is still in")
		}
	}
}

// TestFailuresArePunished logs in wrongly until the source is refused; a login in between clears what it has collected.
func TestFailuresArePunished(t *testing.T) {
	f := newFixture(t)
	f.start()
	wrong := func() {
		if client, err := f.client("nobody-here", f.anna.Signer(softkey.Always)); err == nil {
			client.Close()
			t.Fatal("logged in")
		}
	}
	wrong()
	wrong()
	if r := f.closing(); r.Reason != policies.UserUnknown {
		t.Fatalf("record: %+v", r)
	}
	f.closing()
	f.login("anna", f.anna.Signer(softkey.Always)).Close()
	f.closing()
	f.empty() // while she is in, nothing is punished
	f.server.penalties.mu.Lock()
	left := len(f.server.penalties.bySource)
	f.server.penalties.mu.Unlock()
	if left != 0 {
		t.Error("a login has not cleared the source")
	}
	for range 3 {
		wrong()
		f.closing()
	}
	wrong()
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(sourcePenalised)) {
		t.Errorf("refusal record: %s, want %s", got, sourcePenalised)
	}
}

// TestStrangersQuota sees a stranger's closing records bounded, and the rest counted under the same reason.
func TestStrangersQuota(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.PenaltyExempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	f.writeBundle(2)
	f.start()
	for range maxStrangers + 3 {
		conn, err := f.greeted("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	for range maxStrangers {
		if r := f.closing(); r.Reason != leftEarly {
			t.Fatalf("record: %+v", r)
		}
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(leftEarly)) || !strings.Contains(got, "127.0.0.1/32") {
		t.Errorf("refusal record: %s, want %s counted", got, leftEarly)
	}
	f.login("anna", f.anna.Signer(softkey.Always)).Close()
	if r := f.closing(); r.Outcome != "accepted" {
		t.Errorf("an admitted connection's record: %+v", r)
	}
}

func TestStrangersQuotaIsBounded(t *testing.T) {
	var s strangers
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	written := 0
	for i := range 10 * maxStrangersNamed {
		if s.take(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), start) {
			written++
		}
	}
	if len(s.bySource) > maxStrangersNamed+1 || written > maxAllStrangers {
		t.Errorf("%d networks, %d records; want at most %d and %d", len(s.bySource), written, maxStrangersNamed+1, maxAllStrangers)
	}
	if !s.take(netip.MustParsePrefix("192.0.2.1/32"), start.Add(time.Minute)) {
		t.Error("nothing in the next minute")
	}
}
