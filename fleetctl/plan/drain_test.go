package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
)

func tainted(x Server, held time.Duration) Server {
	x.State, x.Tainted, x.HeldUntil = inventory.Draining, true, t0.Add(held)
	return x
}

func TestDrain(t *testing.T) {
	day := 24 * time.Hour
	se := func(floor int, servers ...Server) Snapshot {
		return Snapshot{Fleet: "f", Regions: []Region{{"se", floor}, {"nl", 0}}, Servers: servers}
	}
	a, b, c, n := serving("a", "se", 1000, day), serving("b", "se", 1000, day), serving("c", "se", 500, day), serving("n", "nl", 1000, day)
	for _, tt := range []struct {
		name, code, want string
		s                Snapshot
		silent           []string
	}{
		{"room", "", "", se(1000, a, b), nil},
		{"exactly the floor", "", "", se(1500, a, b, c), nil},
		{"under it", DrainFloor, "region se: serving 2500 - 1000 (a) = 1500, under the floor of 1501 (out: none)", se(1501, a, b, c), nil},
		{"another region does not help", DrainFloor, "under the floor", se(1000, a, n), nil},
		{"one that is silent does not help", DrainFloor, "(out: [b])", se(1000, a, b), []string{"b"}},
		{"one that is on its way back does not help", DrainFloor, "(out: [b])", se(1000, a, state(inventory.Baking, b)), nil},
		{"one that is held does not help", DrainFloor, "(out: [b])", se(1000, a, tainted(b, time.Hour)), nil},
		{"a silent server takes nothing away", "", "", se(1000, a, b), []string{"a"}},
		{"no such server", DrainUnknown, `no server "a"`, se(0, b), nil},
		{"drains already", DrainState, "a is draining", se(0, state(inventory.Draining, a), b), nil},
		{"its life is over", DrainState, "only a server that serves", se(0, serving("a", "se", 1000, -time.Second), b), nil},
		{"revoked", DrainState, "only a server that serves", se(0, revoked(a), b), nil},
	} {
		h := healthy(tt.s)
		for _, name := range tt.silent {
			delete(h, name)
		}
		got := Drain(tt.s, rules, h, "a", t0)
		if tt.code == "" && len(got) > 0 || tt.code != "" && (len(got) != 1 || got[0].Code != tt.code || !strings.Contains(got[0].Detail, tt.want)) {
			t.Errorf("%s: got %v, want %q %q", tt.name, got, tt.code, tt.want)
		}
	}
}

// TestHeld: while an engineer has a server it is nobody's to rebuild, no place of max_parallel, and no capacity that comes back.
func TestHeld(t *testing.T) {
	day := 24 * time.Hour
	one := rules
	one.MaxParallel = 1
	all := one
	all.All = true
	held := func(left time.Duration) Snapshot {
		return Snapshot{Fleet: "f", Regions: []Region{{"se", 1000}}, Servers: []Server{
			tainted(serving("a", "se", 1000, day), left), serving("b", "se", 1000, day), serving("c", "se", 1000, day)}}
	}
	step := func(s Snapshot, r Rules, name string) Step {
		t.Helper()
		p, refused := Make(s, r, healthy(s), t0)
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		return p.Steps[slices.IndexFunc(p.Steps, func(s Step) bool { return s.Server == name })]
	}
	for _, r := range []Rules{one, all, func() Rules { r := one; r.Lost = []string{"a"}; return r }()} {
		if got := step(held(time.Minute), r, "a"); got.Reason != Held || got.Due || got.Now {
			t.Errorf("held: got %+v", got)
		}
	}
	if got := step(held(time.Minute), all, "b"); !got.Now {
		t.Errorf("another beside it: got %+v", got)
	}
	s := held(time.Minute)
	s.Regions[0].Floor = 2000
	if got := step(s, all, "b"); got.Now || got.Reason != Floor || !strings.Contains(got.Why, "(out: [a])") {
		t.Errorf("another under the floor: got %+v", got)
	}
	if got := step(held(0), one, "a"); got.Reason != Tainted || got.Due || got.Now {
		t.Errorf("at its end: got %+v, want to be carried on", got)
	}
	if got := step(held(0), all, "b"); got.Now || got.Reason != Parallel {
		t.Errorf("another while it is rebuilt: got %+v", got)
	}
}

// TestDrainFloors: users' servers alone keep a floor, and a role's floor holds as the region's does.
func TestDrainFloors(t *testing.T) {
	day := 24 * time.Hour
	a, b, i := serving("a", "se", 1000, day), serving("b", "se", 1000, day), serving("i", "se", 1000, day)
	a.Role, b.Role, i.Internal = "vpn", "dns", true
	s := Snapshot{Fleet: "f", Regions: []Region{{"se", 2000}}, Servers: []Server{a, b, i}}
	if got := Drain(s, rules, healthy(s), "a", t0); len(got) != 1 || got[0].Code != DrainFloor || !strings.Contains(got[0].Detail, "serving 2000 - 1000 (a) = 1000") {
		t.Errorf("an internal one counted: got %v", got)
	}
	if got := Drain(s, rules, healthy(s), "i", t0); len(got) > 0 {
		t.Errorf("an internal one takes nothing from users: got %v", got)
	}
	s.Regions[0].Floor = 1000
	for _, tt := range []struct {
		floor RoleFloor
		held  bool
	}{{RoleFloor{"se", "vpn", 1000}, true}, {RoleFloor{"", "vpn", 1}, true}, {RoleFloor{"se", "", 1001}, true},
		{RoleFloor{"nl", "vpn", 1000}, false}, {RoleFloor{"se", "dns", 1000}, false}, {RoleFloor{"se", "", 1000}, false}} {
		r := rules
		r.Floors = []RoleFloor{tt.floor}
		if got := Drain(s, r, healthy(s), "a", t0); (len(got) > 0) != tt.held || tt.held && got[0].Code != DrainFloor {
			t.Errorf("%+v: got %v", tt.floor, got)
		}
	}
}

// TestFuture: a report from the future is none: the clock here was set back, and nothing says that the server serves now.
func TestFuture(t *testing.T) {
	s := Snapshot{Fleet: "f", Regions: []Region{{"se", 1000}}, Servers: []Server{serving("a", "se", 1000, time.Hour), serving("b", "se", 1000, 24*time.Hour)}}
	for ahead, now := range map[time.Duration]bool{FreshFor: true, FreshFor + time.Second: false, time.Hour: false} {
		h := Health{"a": t0, "b": t0.Add(ahead)}
		p, refused := Make(s, rules, h, t0)
		if len(refused) > 0 || p.Steps[0].Server != "a" || p.Steps[0].Now != now || s.Servers[1].Serves(h, t0) != now {
			t.Errorf("%s ahead: got %v, %+v, want a to go: %v", ahead, refused, p.Steps, now)
		}
	}
}
