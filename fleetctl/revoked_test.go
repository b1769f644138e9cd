package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
)

// TestRevokedTakesNobody: a server whose ticket came twice serves until its deadline, says the store; the list that apps get and the
// status that operators see say otherwise.
func TestRevokedTakesNobody(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	f := inventory.Fleet{Name: "lab", Domain: "lab.test",
		Regions: []inventory.Region{{Name: "se"}}, Racks: []inventory.Rack{{Name: "se-a", Region: "se"}}}
	var known []store.Server
	for i, name := range []string{"se-1", "se-2", "se-3"} {
		f.Servers = append(f.Servers, inventory.Server{Name: name, Rack: "se-a", Role: "vpn", Capacity: 1000,
			Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)}), 24)})
		known = append(known, store.Server{Name: name, State: inventory.Serving, Epoch: 3, BootedAt: now.Add(-time.Hour), Deadline: now.Add(time.Hour),
			BootID: "b", Health: json.RawMessage(`{"boot_id":"b","ready":true}`), HealthAt: now})
	}
	known[1].Revoked = true
	known[2].Revoked, known[2].State = true, inventory.Draining
	b := &bundle.Bundle{Fleet: "lab", Inventory: f, Policy: policies.Policy{Rotation: policies.Rotation{MaxAge: policies.Duration(24 * time.Hour)}}}
	if list := takers(b, known, now); len(list) != 1 || list[0].Name != "se-1" {
		t.Errorf("published %+v, want se-1 alone", list)
	}
	known[0].State, known[0].Tainted = inventory.Draining, true // for an engineer: its users are told to leave
	if list := takers(b, known, now); len(list) != 1 || list[0].Name != "se-1" || !list[0].Draining {
		t.Errorf("published %+v, want se-1 as draining", list)
	}
	known[0].Drained = true
	if list := takers(b, known, now); len(list) != 0 {
		t.Errorf("published %+v, want nobody", list)
	}
	var tainted bytes.Buffer
	if err := newStatus(b, known, now).tables(&tainted, false, nil, now); err != nil || !strings.Contains(tainted.String(), "draining, tainted") {
		t.Errorf("got %v and\n%s", err, tainted.String())
	}
	known[0].State, known[0].Tainted, known[0].Drained = inventory.Serving, false, false
	report := newStatus(b, known, now)
	if report.Regions[0].Serving != 1000 || report.Servers[0].Revoked || !report.Servers[1].Revoked {
		t.Errorf("got %+v, want 1000 serving and se-2 revoked", report)
	}
	var out bytes.Buffer
	if err := report.tables(&out, false, nil, now); err != nil || !strings.Contains(out.String(), "serving, revoked") {
		t.Errorf("got %v and\n%s", err, out.String())
	}
}
