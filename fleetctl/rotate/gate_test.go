package rotate

import (
	"strings"
	"testing"
)

// TestGate names the first cause: what rests on a check that failed says nothing, even where it has an answer.
func TestGate(t *testing.T) {
	for _, tt := range []struct {
		known facts
		at    Check
		want  string
	}{
		{facts{}, CheckPower, "power: x: y; not reached: boot, join, attest, services, probe, traffic"},
		{facts{on: true}, CheckBoot, "boot: x: y; not reached: join, attest, services, probe, traffic"},
		{facts{on: true, joined: true}, CheckServices, "services: x: y; not reached: probe, traffic"},
		{facts{on: true, joined: true, ready: true}, CheckProbe, "probe: x: y; not reached: traffic"},
		{facts{on: true, joined: true, ready: true, probed: true}, CheckTraffic, "traffic: x: y"},
	} {
		if got := judge(tt.known, tt.at, "x: y").String(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.at, got, tt.want)
		}
	}
	g := gate(map[Check]string{CheckProbe: "answers"}, map[Check]string{CheckPower: "off", CheckJoin: "late"})
	if first, ok := g.First(); !ok || first.Check != CheckPower || g[5].State != CheckNotReached || strings.Contains(g.String(), "late") {
		t.Errorf("got %+v", g)
	}
	for reason, want := range map[string]Check{"power_frozen": CheckPower, "quote_nonce": CheckAttest, "ticket_used": CheckJoin, "fetch_failed": CheckBoot} {
		if got := checkOf(reason, false); got != want {
			t.Errorf("%s: got %s, want %s", reason, got, want)
		}
	}
}
