package plan

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
)

// lab is a region with every rule that one server can meet.
func lab(t testing.TB) (Snapshot, Rules) {
	r := rules
	r.MaxAge, r.MaxPerHour, r.MaxParallel = 96*time.Hour, 5, 4
	r.Caps = []Cap{{Domain: "rack", Max: 1}}
	r.Floors = []RoleFloor{{"se", "exit", 500}}
	r.Windows = []Window{{Days: everyDay, From: 60, To: 20 * 60, Zone: "Europe/Stockholm"}}
	s := Snapshot{Fleet: "f", Release: 7, Good: 7, Regions: []Region{{"se", 2000}}, Zones: map[string]*time.Location{"Europe/Stockholm": zone(t, "Europe/Stockholm")}}
	for _, n := range []string{"a", "b", "c", "d"} {
		x := serving(n, "se", 1000, 90*time.Hour)
		x.Role, x.Domains.Rack = "exit", "k1"
		s.Servers = append(s.Servers, x)
	}
	s.Servers[0].Deadline = t0.Add(2 * time.Hour)
	return s, r
}

// TestExplain: the whole text of one that goes, and of one that waits for its window.
func TestExplain(t *testing.T) {
	s, r := lab(t)
	x, refused, ok := Explain(s, r, healthy(s), t0, "a")
	want := `a goes now: due, 2h0m0s before its deadline
  age: deadline 2026-11-20 15:00 CET (2026-11-20 14:00 UTC), due from 2026-11-19 14:23 CET (2026-11-19 13:23 UTC), 1h54m0s of open time before it are kept for waiting
  floor of region se: serving 4000 - 1000 = 3000, floor 2000, 0 in flight
  floor of region se, role exit: serving 4000 - 1000 = 3000, floor 500, 0 in flight
  cap of rack k1: 0 out, at most 1
  max_parallel: 0 of 4 are in flight
  max_per_hour: 0 of 5 have left in the last hour
  windows: open
`
	got := strings.ReplaceAll(x.Text, x.Early.In(s.Zones["Europe/Stockholm"]).Format("2006-01-02 15:04 MST")+" ("+x.Early.Format("2006-01-02 15:04 UTC")+")", "2026-11-19 14:23 CET (2026-11-19 13:23 UTC)")
	if !ok || len(refused) > 0 || got != want {
		t.Errorf("got %v %v\n%s\nwant\n%s", ok, refused, got, want)
	}
	night := time.Date(2026, 11, 20, 22, 0, 0, 0, time.UTC)
	h := Health{}
	for i := range s.Servers {
		s.Servers[i].Deadline = night.Add(12 * time.Hour)
		h[s.Servers[i].Name] = night
	}
	x, _, _ = Explain(s, r, h, night, "b")
	if x.Step.Now || x.Step.Reason != Closed || !strings.Contains(x.Text, "windows: closed until 2026-11-21 01:00 CET (2026-11-21 00:00 UTC)") ||
		!x.Opens.Equal(night.Add(2*time.Hour)) || !strings.Contains(x.Text, "it goes at 2026-11-21 02:54 CET (2026-11-21 01:54 UTC) at the latest") {
		t.Errorf("got %+v\n%s", x, x.Text)
	}
	if _, _, ok := Explain(s, r, h, night, "nobody"); ok {
		t.Error("explained a server that is not there")
	}
}

// TestReasons: each rule holds a server by its own word.
func TestReasons(t *testing.T) {
	due := 2 * time.Hour
	for _, tt := range []struct {
		name, server string
		reason       Reason
		now          bool
		text         string
		change       func(*Snapshot, *Rules)
	}{
		{"goes", "a", Due, true, "before its deadline", func(*Snapshot, *Rules) {}},
		{"cap", "a", Capped, false, "1 of rack k1 are out, at most 1 may be", func(s *Snapshot, _ *Rules) { s.Servers[1].State = inventory.Quarantined }},
		{"role floor", "a", RoleHeld, false, "of role exit, under the floor of 3500", func(s *Snapshot, r *Rules) {
			r.Caps, r.Floors[0].Mbps = nil, 3500
			s.Servers = append(s.Servers, func() Server { x := s.Servers[1]; x.Name, x.State = "q", inventory.Quarantined; return x }())
		}},
		{"rate", "a", RateLimit, false, "max_per_hour 5 servers", func(s *Snapshot, _ *Rules) {
			s.Servers[0].Deadline = t0.Add(12 * time.Hour)
			for range 5 {
				s.Left = append(s.Left, t0.Add(-time.Minute))
			}
		}},
		{"the deadline before the rate", "a", Forced, true, "of open time are left", func(s *Snapshot, _ *Rules) {
			s.Servers[0].Deadline = t0.Add(10 * time.Minute)
			for range 5 {
				s.Left = append(s.Left, t0.Add(-time.Minute))
			}
		}},
		{"blackout", "a", Blacked, false, "blackout fair; open next at 2026-11-20 14:00 CET", func(_ *Snapshot, r *Rules) {
			r.Blackouts = []Blackout{{Name: "fair", From: t0.Add(-time.Hour), To: t0.Add(time.Hour)}}
		}},
		{"zone not known", "a", Forced, true, "0s of open time", func(s *Snapshot, r *Rules) {
			r.Mode = Single
			r.Only = []string{"a"}
			r.Windows[0].To = 24 * 60
			r.Windows[0].From = 14 * 60
			s.Servers[0].Deadline = t0.Add(30 * time.Minute)
		}},
		{"paused", "a", IsPaused, false, "paused", func(s *Snapshot, _ *Rules) { s.Paused = true }},
		{"own host", "a", HereReason, false, "this controller", func(s *Snapshot, _ *Rules) { s.Here = "a" }},
		{"one controller", "a", Controller, false, "(out: [b])", func(s *Snapshot, r *Rules) {
			r.Caps, s.Servers[0].Control, s.Servers[1].Control, s.Servers[1].State = nil, true, true, inventory.Booting
		}},
		{"not named", "b", NotAsked, false, "named", func(_ *Snapshot, r *Rules) { r.Mode, r.Only = Single, []string{"a"} }},
		{"named", "b", Asked, true, "by name", func(_ *Snapshot, r *Rules) { r.Mode, r.Only = Single, []string{"b"} }},
		{"repave", "b", Capped, false, "at most 1", func(_ *Snapshot, r *Rules) { r.Mode = Everyone }},
		{"emergency", "d", Urgent, true, "over all limits", func(s *Snapshot, r *Rules) { r.Mode = Emergency; s.Regions[0].Floor = 4000 }},
		{"upgrade without a train", "b", Capped, false, "at most 1", func(s *Snapshot, r *Rules) { r.Mode, s.Release = Upgrade, 8 }},
		{"upgraded", "b", Current, false, "runs release 8", func(s *Snapshot, r *Rules) { r.Mode, s.Release, s.Servers[1].Release = Upgrade, 8, 8 }},
		{"rolled back", "b", RolledBack, true, "release 8 is bad, 7", func(s *Snapshot, r *Rules) {
			s.Release, s.Bad, s.Servers[1].Release, s.Servers[0].Deadline = 8, []uint64{8}, 8, s.Servers[1].Deadline
		}},
		{"a spare stands by", "e", StandsBy, false, "off", func(s *Snapshot, _ *Rules) {
			s.Servers = append(s.Servers, Server{Name: "e", Region: "se", Capacity: 1000, Spare: true, State: inventory.Standby})
		}},
		{"a spare comes", "e", Surge, true, "holds a server", func(s *Snapshot, r *Rules) {
			r.Caps, r.MaxSpares, s.Regions[0].Floor = nil, 1, 4000
			s.Servers = append(s.Servers, Server{Name: "e", Region: "se", Capacity: 1000, Spare: true, State: inventory.Standby})
		}},
		{"a spare goes", "e", SurgeOver, true, "nothing of its region", func(s *Snapshot, r *Rules) {
			r.MaxSpares, s.Servers[0].Deadline = 1, s.Servers[1].Deadline
			x := s.Servers[1]
			x.Name, x.Spare, x.Domains.Rack = "e", true, ""
			s.Servers = append(s.Servers, x)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, r := lab(t)
			s.Servers[0].Deadline = t0.Add(due)
			tt.change(&s, &r)
			p, refused := Make(s, r, healthy(s), t0)
			if len(refused) > 0 {
				t.Fatal(refused)
			}
			for _, x := range p.Steps {
				if x.Server == tt.server && (x.Reason != tt.reason || x.Now != tt.now || !strings.Contains(x.Why, tt.text)) {
					t.Errorf("got %+v, want %s, now %v, %q", x, tt.reason, tt.now, tt.text)
				}
			}
		})
	}
}

// TestDanger: who is near its deadline is named, the nearest first, also one that nobody takes; who has time is not.
func TestDanger(t *testing.T) {
	s, r := lab(t)
	s.Paused = true
	s.Servers[1].Deadline = t0.Add(time.Hour)
	w := Danger(s, r, healthy(s), t0, 3*time.Hour)
	if len(w) != 2 || w[0].Server != "b" || w[1].Server != "a" || w[0].Reason != IsPaused || w[0].Left != 3600 {
		t.Errorf("got %+v", w)
	}
	if w := Danger(s, r, healthy(s), t0, 0); len(w) != 2 {
		t.Errorf("half of the lead: got %+v", w)
	}
	s.Paused = false
	if w := Danger(s, r, healthy(s), t0, 3*time.Hour); len(w) != 2 || w[0].Server != "b" || !strings.Contains(w[0].Why, "nobody has taken it") || w[1].Server != "a" || w[1].Reason != Capped {
		t.Errorf("one would go, and nobody takes it, one waits for it: got %+v", w)
	}
	s.Regions[0].Floor = 4000
	h := healthy(s)
	delete(h, "c")
	if g := Totals(s, r, h, t0); len(g) != 1 || g[0].Name != "se" || g[0].Capacity != 4000 || g[0].Serving != 3000 || g[0].Floor != 4000 {
		t.Errorf("totals without a plan: got %+v", g)
	}
	if w := Danger(s, r, healthy(s), t0, 3*time.Hour); len(w) != 2 || w[0].Reason != FloorImpossible {
		t.Errorf("rules that cannot be kept: got %+v", w)
	}
}

// TestChanges: the change that a refusal names makes the rules feasible, and one smaller does not.
func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		code, text string
		change     func(*Snapshot, *Rules)
	}{
		{FloorImpossible, "the floor of region se down to 3000 (now 3500), or one more server of region se with 500 Mbit/s", func(s *Snapshot, _ *Rules) { s.Regions[0].Floor = 3500 }},
		{FloorImpossible, "the floor of region se, role exit down to 3000 (now 3900)", func(_ *Snapshot, r *Rules) { r.Floors[0].Mbps = 3900 }},
		{AgeImpossible, "max_age up to", func(_ *Snapshot, r *Rules) { r.MaxAge, r.Windows, r.Caps, r.MaxPerHour = 30*time.Minute, nil, nil, 0 }},
		{CapImpossible, "at most 2 of a rack out (now 1, k1)", func(_ *Snapshot, r *Rules) {
			r.MaxAge, r.Windows, r.MaxPerHour = 90*time.Minute, nil, 0
		}},
		{RateImpossible, "max_per_hour up to", func(_ *Snapshot, r *Rules) { r.MaxAge, r.Windows, r.MaxPerHour = 6*time.Hour, nil, 1 }},
		{WindowImpossible, "windows that end", func(_ *Snapshot, r *Rules) { r.Windows[0].To = 70 }},
	} {
		s, r := lab(t)
		tt.change(&s, &r)
		_, refused := Check(s, r, t0)
		if len(refused) != 1 || refused[0].Code != tt.code || !strings.Contains(refused[0].Change, tt.text) {
			t.Errorf("%s: got %+v, want %q", tt.code, refused, tt.text)
			continue
		}
		sh, _ := measure(s, r)
		ahead := 2 * r.MaxAge
		sh.calendars = calendars(s, r, t0.Add(-24*time.Hour), t0.Add(ahead+r.MaxAge))
		changes := sh.changes(refused[0], t0, ahead)
		for _, c := range changes {
			if _, still := sh.with(c, t0, ahead).check(t0, ahead); len(still) > 0 {
				t.Errorf("%s: %s does not mend it: %v", tt.code, c.text, still)
			}
			less := c
			if c.what == "floor" {
				less.to++
			} else {
				less.to--
			}
			if _, still := sh.with(less, t0, ahead).check(t0, ahead); len(still) == 0 {
				t.Errorf("%s: %s is more than is needed", tt.code, c.text)
			}
		}
		if len(changes) == 0 {
			t.Errorf("%s: no change was found", tt.code)
		}
	}
	s, r := lab(t)
	if proof, refused := Check(s, r, t0); len(refused) > 0 || len(proof) != 3 || !strings.Contains(proof[2].Sum, "windows are open for") {
		t.Errorf("got %+v %v", proof, refused)
	}
}

// TestInputs: every field of a server is part of what a plan was made from.
func TestInputs(t *testing.T) {
	s, r := lab(t)
	base := inputs(s, r, healthy(s), t0)
	var flip func(v reflect.Value, path string)
	flip = func(v reflect.Value, path string) {
		was := reflect.New(v.Type()).Elem()
		was.Set(v)
		switch x := v.Addr().Interface().(type) {
		case *time.Time:
			*x = x.Add(time.Second)
		case *Domains:
			for i := range v.NumField() {
				flip(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
			return
		default:
			switch v.Kind() {
			case reflect.String:
				v.SetString(v.String() + "x")
			case reflect.Int:
				v.SetInt(v.Int() + 1)
			case reflect.Uint64:
				v.SetUint(v.Uint() + 1)
			case reflect.Bool:
				v.SetBool(!v.Bool())
			default:
				t.Fatalf("%s: %v", path, v.Kind())
			}
		}
		if inputs(s, r, Health{}, t0) == base {
			t.Errorf("%s is no part of it", path)
		}
		v.Set(was)
	}
	base = inputs(s, r, Health{}, t0)
	v := reflect.ValueOf(&s.Servers[0]).Elem()
	for i := range v.NumField() {
		flip(v.Field(i), v.Type().Field(i).Name)
	}
}
