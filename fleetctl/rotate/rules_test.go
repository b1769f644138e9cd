package rotate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/release"
)

// t0 is a Monday.
var t0 = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func vpn(name, rack string, capacity int) inventory.Server {
	return inventory.Server{Name: name, Rack: rack, Role: inventory.RoleVPN, Capacity: capacity}
}

// manyRules is a fleet with one of everything.
func manyRules() (inventory.Fleet, policies.Rotation) {
	f := inventory.Fleet{Name: "f", Mirrors: []string{"http://192.0.2.1:80/", "http://192.0.2.2:80/"},
		Regions: []inventory.Region{{Name: "se", Floor: inventory.Floor{Mbps: 900}}, {Name: "nl"}, {Name: "hq"}},
		Racks:   []inventory.Rack{{Name: "se-a", Region: "se"}, {Name: "nl-a", Region: "nl"}, {Name: "hq-a", Region: "hq"}},
		Servers: []inventory.Server{vpn("se-1", "se-a", 1000), vpn("se-2", "se-a", 1000), vpn("se-s", "se-a", 500), vpn("se-i", "se-a", 700), vpn("nl-1", "nl-a", 300), vpn("nl-2", "nl-a", 300),
			{Name: "gate", Rack: "hq-a", Role: inventory.RoleBastion}, {Name: "ctl", Rack: "hq-a", Role: inventory.RoleController, Address: netip.MustParsePrefix("192.0.2.9/24")},
			{Name: "web", Role: inventory.RoleHost}},
	}
	f.Servers[1].Switch, f.Servers[1].BMCNetwork, f.Servers[1].Mirror = "sw-1", "oob-1", "http://192.0.2.2:80/"
	f.Servers[2].Spare = true
	f.Servers[3].Ring = inventory.RingInternal
	day := policies.Duration(24 * time.Hour)
	return f, policies.Rotation{MaxAge: day, MaxParallel: 2, DrainLimit: policies.Duration(time.Minute), BootLimit: policies.Duration(3 * time.Minute), Bake: policies.Duration(2 * time.Second), Retries: 1,
		MaxPerHour: 9, MaxSpares: 1,
		Floors:    []policies.Floor{{Floor: inventory.Floor{Mbps: 100}}, {Region: "se", Floor: inventory.Floor{Percent: 50}}, {Role: "vpn", Floor: inventory.Floor{Percent: 25}}},
		Caps:      []policies.Cap{{Domain: "rack", Max: 1}, {Domain: "switch", Name: "sw-1", Max: 2}},
		Windows:   []policies.RotationWindow{{Regions: []string{"se"}, Days: []string{"mon"}, From: "02:00", To: "24:00", Zone: "Europe/Stockholm"}},
		Blackouts: []policies.Blackout{{Name: "x", From: t0, To: t0.Add(time.Hour)}},
		Train:     policies.Train{Canaries: 1, Steps: []int{10, 100}, Bake: policies.Duration(time.Minute), MaxErrors: 0.1},
	}
}

// TestRules: every rule of a policy is one of the planner's.
func TestRules(t *testing.T) {
	f, p := manyRules()
	want := plan.Rules{MaxAge: 24 * time.Hour, MaxParallel: 2, DrainLimit: time.Minute, BootLimit: 3 * time.Minute, Bake: 2 * time.Second, Retries: 1, MaxPerHour: 9, MaxSpares: 1,
		Floors:    []plan.RoleFloor{{Region: "se", Role: "vpn", Mbps: 500}, {Region: "nl", Role: "vpn", Mbps: 150}},
		Caps:      []plan.Cap{{Domain: "rack", Max: 1}, {Domain: "switch", Name: "sw-1", Max: 2}},
		Windows:   []plan.Window{{Regions: []string{"se"}, Days: []time.Weekday{time.Monday}, From: 120, To: 1440, Zone: "Europe/Stockholm"}},
		Blackouts: []plan.Blackout{{Name: "x", From: t0, To: t0.Add(time.Hour)}},
		Train:     plan.Train{Canaries: 1, Steps: []int{10, 100}, Bake: time.Minute, MaxErrors: 0.1, Confidence: 0.95},
	}
	if got := Rules(f, p, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Rules(f, p, &release.Statement{MaxAge: 3600}); got.MaxAge != time.Hour {
		t.Errorf("a release that allows less: got %v", got.MaxAge)
	}
	// A policy of an older form gives what it always gave.
	old := policies.Rotation{MaxAge: p.MaxAge, MaxParallel: 2, DrainLimit: p.DrainLimit, BootLimit: p.BootLimit, Bake: p.Bake, Retries: 1}
	was := plan.Rules{MaxAge: 24 * time.Hour, MaxParallel: 2, DrainLimit: time.Minute, BootLimit: 3 * time.Minute, Bake: 2 * time.Second, Retries: 1}
	if got := Rules(f, old, nil); !reflect.DeepEqual(got, was) {
		t.Errorf("older form: got %+v, want %+v", got, was)
	}
}

// TestWhole: the snapshot has of each server what the rules are about, and of each region the higher floor.
func TestWhole(t *testing.T) {
	f, p := manyRules()
	s := Whole(f, p)
	if want := []plan.Region{{Name: "se", Floor: 1000}, {Name: "nl", Floor: 100}, {Name: "hq"}}; !slices.Equal(s.Regions, want) {
		t.Errorf("regions: got %v, want %v", s.Regions, want)
	}
	first, second := "http://192.0.2.1:80/", "http://192.0.2.2:80/"
	for i, want := range []plan.Server{
		{Name: "se-1", Region: "se", Capacity: 1000, Role: "vpn", Domains: plan.Domains{Rack: "se-a", Mirror: first}, State: inventory.Serving, Epoch: 1},
		{Name: "se-2", Region: "se", Capacity: 1000, Role: "vpn", Domains: plan.Domains{Rack: "se-a", Switch: "sw-1", BMC: "oob-1", Mirror: second}, State: inventory.Serving, Epoch: 1},
		{Name: "se-s", Region: "se", Capacity: 500, Role: "vpn", Spare: true, Domains: plan.Domains{Rack: "se-a", Mirror: first}, State: inventory.Standby, Epoch: 1},
		{Name: "se-i", Region: "se", Capacity: 700, Role: "vpn", Internal: true, Domains: plan.Domains{Rack: "se-a", Mirror: first}, State: inventory.Serving, Epoch: 1},
		{Name: "nl-1", Region: "nl", Capacity: 300, Role: "vpn", Domains: plan.Domains{Rack: "nl-a", Mirror: first}, State: inventory.Serving, Epoch: 1},
		{Name: "nl-2", Region: "nl", Capacity: 300, Role: "vpn", Domains: plan.Domains{Rack: "nl-a", Mirror: first}, State: inventory.Serving, Epoch: 1},
		{Name: "gate", Region: "hq", Role: "bastion", Bastion: true, Domains: plan.Domains{Rack: "hq-a", Mirror: first}, State: inventory.Serving, Epoch: 1},
		{Name: "ctl", Region: "hq", Role: "controller", Control: true, Domains: plan.Domains{Rack: "hq-a", Mirror: first}, State: inventory.Serving, Epoch: 1},
	} {
		if i >= len(s.Servers) || s.Servers[i] != want {
			t.Errorf("server %d: got %+v, want %+v", i, s.Servers[min(i, len(s.Servers)-1)], want)
		}
	}
	if len(s.Servers) != 8 {
		t.Errorf("got %d servers, want 8: a host is nobody's to rebuild", len(s.Servers))
	}
	if got := Here(f, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.9")}); got != "ctl" {
		t.Errorf("here: got %q, want ctl", got)
	}
	if got := Here(f, []netip.Addr{netip.MustParseAddr("127.0.0.1")}); got != "" {
		t.Errorf("elsewhere: got %q", got)
	}
}

// TestSnapshot: what the store knows of a life is in the snapshot.
func TestSnapshot(t *testing.T) {
	f, p := manyRules()
	b := &bundle.Bundle{Version: 3, Inventory: f, Policy: policies.Policy{Rotation: p}}
	s, h := Snapshot(b, 8, []store.Server{
		{Name: "se-1", State: inventory.Serving, Epoch: 4, Release: "7", BootedAt: t0, BootID: "b", Health: []byte(`{"boot_id":"b","ready":true}`), HealthAt: t0},
		{Name: "se-s", State: inventory.Standby, Epoch: 2, Release: "7"},
		{Name: "se-i", State: inventory.Serving, Epoch: 1, Release: "sha256:00", Revoked: true},
		{Name: "gone", State: inventory.Serving, Epoch: 1},
	})
	if s.Release != 8 || s.Policy != 3 || len(s.Servers) != 8 {
		t.Errorf("got %+v", s)
	}
	if x := s.Servers[0]; x.State != inventory.Serving || x.Epoch != 4 || x.Release != 7 || !x.Deadline.Equal(t0.Add(24*time.Hour)) || x.Domains.Rack != "se-a" {
		t.Errorf("se-1: got %+v", x)
	}
	if x := s.Servers[1]; x.State != inventory.New || x.Epoch != 0 {
		t.Errorf("one that the store does not know: got %+v", x)
	}
	if x := s.Servers[2]; x.State != inventory.Standby || !x.Spare || x.Epoch != 2 {
		t.Errorf("the spare: got %+v", x)
	}
	if x := s.Servers[3]; x.Release != 0 || !x.Revoked || !x.Internal {
		t.Errorf("the internal one: got %+v", x)
	}
	if len(h) != 1 || !h["se-1"].Equal(t0) {
		t.Errorf("health: got %v", h)
	}
}

// TestFloorsAgree: what the inventory refuses as a floor that can never be kept, the planner refuses, and the other way round. Where spares stand in, the inventory takes
// all of them for allowed, which only a policy says.
func TestFloorsAgree(t *testing.T) {
	rules := plan.Rules{MaxAge: 7 * 24 * time.Hour, MaxParallel: 100, BootLimit: time.Minute, MaxSpares: 100}
	draw := rand.New(rand.NewPCG(6, 6))
	verdicts := map[bool]int{}
	for n := range 3000 {
		f := inventory.Fleet{Name: "f"}
		for g := range 1 + draw.IntN(3) {
			name := fmt.Sprintf("r%d", g)
			floor := inventory.Floor{Mbps: draw.IntN(2000)}
			if draw.IntN(2) == 0 {
				floor = inventory.Floor{Percent: 1 + draw.IntN(100)}
			}
			f.Regions = append(f.Regions, inventory.Region{Name: name, Floor: floor})
			f.Racks = append(f.Racks, inventory.Rack{Name: name, Region: name})
			for i := range 1 + draw.IntN(5) {
				s := vpn(fmt.Sprintf("%s-%d", name, i), name, 1+draw.IntN(1000))
				switch kind := draw.IntN(8); {
				case i == 0: // a region without any that counts is the inventory's to refuse alone
				case kind == 0:
					s.Ring = inventory.RingInternal
				case kind == 1:
					s.Spare = n%2 == 0
				}
				f.Servers = append(f.Servers, s)
			}
		}
		bad := inventory.CheckFloors(f)
		_, refused := plan.Check(Whole(f, policies.Rotation{}), rules, t0)
		impossible := slices.ContainsFunc(refused, func(r plan.Refusal) bool { return r.Code == plan.FloorImpossible })
		verdicts[impossible]++
		if (bad != nil) != impossible {
			t.Fatalf("fleet %d %+v: inventory says %v, the planner %v", n, f, bad, refused)
		}
	}
	if verdicts[true] < 100 || verdicts[false] < 100 {
		t.Errorf("the draws are one-sided: %v", verdicts)
	}
}
