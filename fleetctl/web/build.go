package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Input is what a View is made from. Whoever gathers it has checked signatures.
type Input struct {
	Fleet    inventory.Fleet
	Policy   uint64
	Snapshot plan.Snapshot
	Rules    plan.Rules
	Health   plan.Health
	Plan     plan.Plan
	Refusals plan.Refusals
	Servers  []store.Server

	Run      store.Run // the open one, or the last
	Open     bool
	Pause    store.Pause
	Claims   []store.Claim
	Use      store.Use
	Marks    []store.Mark
	Failures map[string]Failure // of quarantined servers
	Train    *Train
	Alerts   []Alert // beside those that follow from the rest
	Ledger   Ledger
	Entries  map[string]Entry // the first entry of each server's latest life
}

// Failure is what is known of why a server is kept out.
type Failure struct {
	Reason, Detail string
	Console        string
}

// Bounds of what is shown at once.
const (
	maxSteps      = 100
	maxAlerts     = 50
	maxQuarantine = 100
	maxClaimed    = 20
	ageBins       = 20
)

// Build makes the view of everything.
func Build(in Input, now time.Time) View {
	v := View{Fleet: in.Fleet.Name, Test: in.Fleet.Test, Policy: in.Policy, Made: now.UTC().Truncate(time.Second)}
	known := make(map[string]store.Server, len(in.Servers))
	for _, s := range in.Servers {
		known[s.Name] = s
	}
	v.servers(in, known, now)
	v.regions(in)
	v.floors(in, now)
	v.plan(in, known)
	v.ages()
	v.releases(in)
	v.quarantine(in, known)
	v.controllers(in)
	v.Train, v.Pause, v.Run = in.Train, pauseOf(in.Pause), runOf(in)
	v.ledger(in)
	v.alerts(in, now)
	return v
}

// when is a time for JSON and templates: nil if it is zero.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (v *View) servers(in Input, known map[string]store.Server, now time.Time) {
	listed := make(map[string]inventory.Server, len(in.Fleet.Servers))
	for _, s := range in.Fleet.Servers {
		listed[s.Name] = s
	}
	lead := make(map[string]time.Duration, len(in.Plan.Regions))
	for _, r := range in.Plan.Regions {
		lead[r.Name] = time.Duration(r.Lead) * time.Second
	}
	steps := make(map[string]plan.Step, len(in.Plan.Steps))
	for _, s := range in.Plan.Steps {
		steps[s.Server] = s
	}
	v.Servers = make([]Server, 0, len(in.Snapshot.Servers))
	v.byName = make(map[string]int, len(in.Snapshot.Servers))
	for _, x := range in.Snapshot.Servers {
		k, step := known[x.Name], steps[x.Name]
		s := Server{Name: x.Name, Region: x.Region, Role: listed[x.Name].Role, Rack: listed[x.Name].Rack, Kind: kindOf(x, in.Health, now), State: x.State, Epoch: x.Epoch,
			Capacity: x.Capacity, Internal: x.Internal, Spare: x.Spare, Release: clean(k.Release, maxWord), Evidence: clean(k.Evidence, maxWord), Booted: when(k.BootedAt),
			Deadline: when(x.Deadline), Heard: when(k.HealthAt), Due: step.Due, Now: step.Now, Reason: string(step.Reason), Why: clean(step.Why, maxText), Cause: clean(k.Cause, maxText)}
		if e, ok := in.Entries[x.Name]; ok && e.Epoch == x.Epoch {
			s.Entry = &e
		}
		if s.Deadline != nil {
			s.Left = int64(x.Deadline.Sub(now) / time.Second)
		}
		if s.Booted != nil && x.State != inventory.Standby {
			s.AgeSeconds = max(0, int64(now.Sub(k.BootedAt)/time.Second))
			if life := x.Deadline.Sub(k.BootedAt); s.Deadline != nil && life > 0 {
				s.Used = min(1, max(0, float64(now.Sub(k.BootedAt))/float64(life)))
				s.DueAt = min(1, max(0, 1-float64(lead[x.Region])/float64(life)))
			}
		}
		v.byName[s.Name] = len(v.Servers)
		v.Servers = append(v.Servers, s)
		v.Totals.add(s)
	}
}

// kindOf is how a server is shown.
func kindOf(x plan.Server, h plan.Health, now time.Time) Kind {
	switch {
	case x.Serves(h, now):
		return Serves
	case x.State == inventory.Serving:
		return Silent
	case x.State == inventory.Draining && x.Tainted && now.Before(x.HeldUntil):
		return Held
	case x.State.InFlight():
		return Moving
	case x.State == inventory.Quarantined:
		return Quarantine
	case x.State == inventory.Standby:
		return StandsBy
	}
	return NeverBooted
}

func (t *Totals) add(s Server) {
	t.Servers++
	if !s.Spare && !s.Internal {
		t.Capacity += s.Capacity
	}
	switch s.Kind {
	case Serves:
		t.Serving++
		if !s.Internal {
			t.Mbps += s.Capacity
		}
	case Moving:
		t.Moving++
	case Silent:
		t.Silent++
	case Held:
		t.Held++
	case Quarantine:
		t.Quarantined++
	case StandsBy:
		t.Standby++
	case NeverBooted:
		t.New++
	}
}

func (v *View) regions(in Input) {
	totals := make(map[string]plan.RegionTotals, len(in.Plan.Regions))
	for _, r := range in.Plan.Regions {
		totals[r.Name] = r
	}
	at := make(map[string]int, len(in.Snapshot.Regions))
	v.Regions = make([]Region, 0, len(in.Snapshot.Regions))
	for _, r := range in.Snapshot.Regions {
		t := totals[r.Name]
		at[r.Name] = len(v.Regions)
		v.Regions = append(v.Regions, Region{Name: r.Name, Floor: r.Floor, AtOnce: t.AtOnce, Lead: t.Lead, Kinds: map[Kind]int{}})
	}
	for _, s := range v.Servers {
		i, ok := at[s.Region]
		if !ok {
			continue
		}
		r := &v.Regions[i]
		r.Servers++
		r.Kinds[s.Kind]++
		if s.Due {
			r.Due++
		}
		if !s.Spare && !s.Internal {
			r.Capacity += s.Capacity
		}
		if s.Kind == Serves && !s.Internal {
			r.Serving += s.Capacity
		}
		if s.Kind == Serves && s.Deadline != nil && (r.First == nil || s.Deadline.Before(*r.First)) {
			r.First = s.Deadline
		}
	}
	for i := range v.Regions {
		r := &v.Regions[i]
		r.Mood = moodOf(r.Serving, r.Floor, r.Kinds[Quarantine]+r.Kinds[Silent])
	}
}

// moodOf is how a floor is kept.
func moodOf(serving, floor, broken int) Mood {
	switch {
	case serving < floor:
		return Danger
	case broken > 0:
		return Attention
	}
	return Calm
}

func (v *View) floors(in Input, now time.Time) {
	v.Floors = []RoleFloor{}
	for _, f := range in.Rules.Floors {
		have := 0
		for _, x := range in.Snapshot.Servers {
			if x.Region == f.Region && x.Role == f.Role && !x.Internal && x.Serves(in.Health, now) {
				have += x.Capacity
			}
		}
		v.Floors = append(v.Floors, RoleFloor{f.Region, f.Role, f.Mbps, have, moodOf(have, f.Mbps, 0)})
	}
}

func (v *View) plan(in Input, known map[string]store.Server) {
	p := Plan{Inputs: in.Plan.Inputs, Release: in.Plan.Release, Now: []Step{}, Flight: []Step{}, Waiting: []Step{}, Reasons: []Reason{}, Refusals: []Refusal{}}
	holders := make(map[string]string, len(in.Claims))
	for _, c := range in.Claims {
		holders[c.Server] = clean(c.Holder, maxWord)
	}
	waits := map[string]int{}
	for _, x := range in.Plan.Steps {
		s := Step{Server: x.Server, Region: x.Region, State: string(x.State), Since: when(known[x.Server].Since), Deadline: when(x.Deadline), Reason: string(x.Reason), Why: clean(x.Why, maxText), By: holders[x.Server]}
		if x.Due {
			p.Due++
		}
		switch {
		case x.Now:
			if p.Begins++; p.Begins <= maxSteps {
				p.Now = append(p.Now, s)
			}
		case x.State.InFlight():
			if p.Flying++; p.Flying <= maxSteps {
				p.Flight = append(p.Flight, s)
			}
		case x.Due:
			p.Waits++
			waits[s.Reason]++
			if len(p.Waiting) < maxSteps {
				p.Waiting = append(p.Waiting, s)
			}
		}
	}
	for r, n := range waits {
		p.Reasons = append(p.Reasons, Reason{r, n})
	}
	slices.SortFunc(p.Reasons, func(a, b Reason) int { return cmp.Or(b.Servers-a.Servers, strings.Compare(a.Reason, b.Reason)) })
	for _, r := range in.Refusals {
		p.Refusals = append(p.Refusals, refusalOf(r))
	}
	v.Plan = p
}

// ages counts servers that live by how much of their life is over.
func (v *View) ages() {
	v.Ages = make([]Age, ageBins)
	for i := range v.Ages {
		v.Ages[i].From = i * 100 / ageBins
	}
	for _, s := range v.Servers {
		if s.Deadline == nil || s.Booted == nil || s.Kind != Serves && s.Kind != Silent && s.Kind != Held {
			continue
		}
		a := &v.Ages[min(ageBins-1, int(s.Used*ageBins))]
		a.Servers++
		if s.Due {
			a.Due++
		}
	}
}

func (v *View) alerts(in Input, now time.Time) {
	add := func(m Mood, code, server, region, text string, args ...any) {
		v.Alerts = append(v.Alerts, Alert{m, code, server, region, fmt.Sprintf(text, args...)})
	}
	v.Alerts = []Alert{}
	for _, r := range v.Plan.Refusals {
		add(Danger, r.Code, "", r.Region, "The rules cannot be kept, so nothing begins: %s", r.Detail)
	}
	for _, r := range v.Regions {
		if r.Serving < r.Floor {
			add(Danger, "under_floor", "", r.Name, "%s serves %s, under its floor of %s.", r.Name, mbps(r.Serving), mbps(r.Floor))
		}
	}
	for _, f := range v.Floors {
		if f.Mood == Danger {
			add(Danger, "under_floor", "", f.Region, "Role %s serves %s in %s, under its floor of %s.", f.Role, mbps(f.Serving), f.Region, mbps(f.Floor))
		}
	}
	v.Alerts = append(v.Alerts, in.Alerts...)
	for _, s := range v.Servers {
		if s.State == inventory.Serving && s.Deadline != nil && !s.Deadline.After(now) {
			add(Danger, "deadline_passed", s.Name, s.Region, "%s passed its deadline: it has ended itself.", s.Name)
		}
	}
	if n := v.Totals.Quarantined; n > 0 {
		add(Attention, "quarantined", "", "", "%s in quarantine.", count(n, "server is", "servers are"))
	}
	if n := v.Totals.Silent; n > 0 {
		add(Attention, "silent", "", "", "%s not heard of lately.", count(n, "server was", "servers were"))
	}
	if v.Pause.On {
		add(Attention, "paused", "", "", "Rotations are paused: nothing begins.")
	}
	if v.Ledger.Problem != "" {
		add(Attention, "ledger", "", "", "The ledger cannot be shown: %s.", v.Ledger.Problem)
	}
	slices.SortStableFunc(v.Alerts, func(a, b Alert) int { return rank(b.Mood) - rank(a.Mood) })
	v.Mood, v.Summary = Calm, "Every region is over its floor, and no deadline is in danger."
	if len(v.Alerts) > 0 {
		v.Mood = v.Alerts[0].Mood
		v.Summary = count(len(v.Alerts), "alert", "alerts") + "."
	}
	if len(v.Alerts) > maxAlerts {
		more := len(v.Alerts) - maxAlerts
		v.Alerts = v.Alerts[:maxAlerts]
		add(Attention, "more", "", "", "And %d more.", more)
	}
}

func rank(m Mood) int { return slices.Index([]Mood{Calm, Attention, Danger}, m) }

// count is "1 server is" or "3 servers are".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return group(n) + " " + many
}
