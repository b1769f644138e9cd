package web

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

// noon is when the tests' fleet is looked at.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

var places = []string{"ams", "arn", "fra", "hel", "lhr", "mad", "nrt", "sin"}

// hostile is what a server could say to whoever reads its console.
const hostile = "<script>document.title='taken'</script>\n\x1b[2J\u202egnp.exe\n\x00 kernel panic <b>not syncing</b>"

// fleet is a fleet of n servers in which something of everything happens.
func fleet(n int) Input {
	const day = 24 * time.Hour
	in := Input{
		Fleet:    inventory.Fleet{Name: "harbour", Test: true},
		Policy:   41,
		Rules:    plan.Rules{MaxAge: 7 * day, MaxParallel: 40, Floors: []plan.RoleFloor{{Region: "arn", Role: "vpn", Mbps: 1000}}},
		Health:   plan.Health{},
		Failures: map[string]Failure{},
		Entries:  map[string]Entry{},
		Use:      store.Use{Version: 118, Digest: "9f2c4b6d8e0a1c3e5f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6", By: "anna", At: noon.Add(-30 * time.Hour)},
		Marks: []store.Mark{
			{Version: 117, Digest: "55aa", Mark: store.Good, By: "train", Why: "a whole train of it arrived", At: noon.Add(-5 * day)},
			{Version: 116, Digest: "66bb", Mark: store.Bad, By: "train", Why: "9 of 40 attempts failed: the error rate is over 2 %", At: noon.Add(-8 * day)},
		},
		Run:  store.Run{ID: 912, Began: noon.Add(-50 * time.Minute)},
		Open: true,
		Train: &Train{Release: 118, From: 117, Stage: "10%", Number: 4, Stages: 6, Reach: n / 10, Servers: n, Pending: n / 80, Attempts: n / 12, Failed: 1, Lower: 0.0005, Upper: 0.0161, MaxErrors: 0.02,
			Verdict: "bakes", Why: "the stage is not over: the last of its servers serve since 11:52 UTC, and bake for 30 minutes", Until: when(noon.Add(22 * time.Minute))},
		Ledger: Ledger{Origin: "mayfly/harbour/ledger", Size: 48211, Root: "mW0b7kQ2Jx8cQkq0V7xVtX8s3m0yJm3mB2x0c1Yd8uE=", Entries: 48213, Witnesses: []string{"witness-eu", "witness-us"}, Needed: 2, Read: when(noon.Add(-3 * time.Second))},
		Claims: []store.Claim{},
	}
	in.Snapshot = plan.Snapshot{Fleet: "harbour", Policy: 41, Release: 118, Good: 117}
	in.Plan = plan.Plan{Made: noon, Inputs: "4be1c0ffee5d1a7ad0cafe15ab1ec0de4be1c0ffee5d1a7ad0cafe15ab1ec0de", Release: 118}
	capacity := map[string]int{}
	for i := range n {
		place := places[(i*7+i/11)%len(places)]
		if i%6 == 0 {
			place = places[i/6%3]
		}
		name := fmt.Sprintf("%s-%04d", place, i)
		age := time.Duration(i*7919%6400) * 88 * time.Second
		booted := noon.Add(-age)
		s := plan.Server{Name: name, Region: place, Capacity: 10000, Role: "vpn", State: inventory.Serving, Epoch: uint64(3 + i%40), Deadline: booted.Add(7 * day), Release: 117}
		k := store.Server{Name: name, State: s.State, Epoch: s.Epoch, Since: booted.Add(time.Minute), Release: "117", Evidence: "attested", BootedAt: booted, JoinedAt: booted.Add(time.Minute), Deadline: s.Deadline, HealthAt: noon.Add(-2 * time.Second)}
		step := plan.Step{Server: name, Region: place, Reason: plan.Young, Why: "not due yet"}
		in.Health[name] = k.HealthAt
		switch {
		case i%97 == 5:
			states := []inventory.State{inventory.Draining, inventory.Wiping, inventory.Booting, inventory.Attesting, inventory.Baking}
			s.State, step.Reason, step.Why = states[i/97%5], plan.InFlight, "begun, is carried on"
			in.Claims = append(in.Claims, store.Claim{Server: name, Holder: fmt.Sprintf("control-%d/4%d/a%d", i/97%2+1, i/97%2, i/97%2), Token: 9, Expires: noon.Add(21 * time.Second)})
			delete(in.Health, name)
		case i%211 == 17:
			s.State, k.Cause, step.Reason = inventory.Quarantined, "boot: fetch_failed: no mirror answered", plan.Withheld
			in.Failures[name] = Failure{Reason: "fetch_failed", Detail: "no mirror answered within 30s", Console: "mayfly-stub: fetching image from 192.0.2.7\nmayfly-stub: timeout\n" + hostile}
			delete(in.Health, name)
		case i%331 == 23:
			delete(in.Health, name) // silent
		case i%61 == 31:
			s.Spare, s.State, step.Reason = true, inventory.Standby, plan.Reason("standby")
			s.Deadline, k.BootedAt = time.Time{}, time.Time{}
			delete(in.Health, name)
		case i%401 == 9:
			s.State, s.Epoch, s.Deadline, k.BootedAt, k.Release, step.Reason = inventory.New, 0, time.Time{}, time.Time{}, "", plan.First
			step.Due, step.Now, step.Why = true, true, "never booted by this controller"
			delete(in.Health, name)
		case age > 6*day && i%7 == 0:
			step.Due, step.Now, step.Reason, step.Why = true, true, plan.Due, "its deadline comes near, and the floor holds without it"
		case age > 6*day:
			step.Due, step.Reason, step.Why = true, plan.Floor, "its removal would take the region from 81.2 to 78.9 Gbit/s, under the floor of 80.0"
		}
		if i%12 == 3 && s.State == inventory.Serving {
			s.Release, k.Release = 118, "118"
		}
		if s.Epoch > 0 {
			in.Entries[name] = Entry{Index: uint64(40000 + i), At: booted, Epoch: s.Epoch, Proven: i%50 != 0}
		}
		k.State, k.Epoch = s.State, s.Epoch
		step.State, step.Epoch, step.Capacity, step.Deadline = s.State, s.Epoch, s.Capacity, s.Deadline
		if !s.Spare {
			capacity[place] += s.Capacity
		}
		in.Fleet.Servers = append(in.Fleet.Servers, inventory.Server{Name: name, Rack: place + "-r" + fmt.Sprint(i%4+1), Role: "vpn", Capacity: s.Capacity, Address: netip.MustParsePrefix("192.0.2.1/24")})
		in.Snapshot.Servers = append(in.Snapshot.Servers, s)
		in.Servers = append(in.Servers, k)
		in.Plan.Steps = append(in.Plan.Steps, step)
	}
	for _, p := range places {
		floor := capacity[p] * 8 / 10
		if p == "nrt" {
			floor = capacity[p]
		}
		in.Snapshot.Regions = append(in.Snapshot.Regions, plan.Region{Name: p, Floor: floor})
		in.Plan.Regions = append(in.Plan.Regions, plan.RegionTotals{Name: p, Capacity: capacity[p], Floor: floor, AtOnce: 3, Lead: int64(day / time.Second)})
	}
	return in
}

// small is a fleet with nothing in it that needs anybody.
func small() Input {
	in := fleet(40)
	in.Train, in.Run, in.Open, in.Claims = nil, store.Run{}, false, nil
	in.Rules.Floors = nil
	in.Failures = map[string]Failure{}
	for i := range in.Snapshot.Servers {
		s, k, step := &in.Snapshot.Servers[i], &in.Servers[i], &in.Plan.Steps[i]
		s.State, k.State, s.Spare = inventory.Serving, inventory.Serving, false
		k.BootedAt, s.Deadline = noon.Add(-time.Hour), noon.Add(167*time.Hour)
		*step = plan.Step{Server: s.Name, Region: s.Region, State: s.State, Deadline: s.Deadline, Reason: plan.Young, Why: "not due yet"}
		in.Health[s.Name] = noon
		k.Cause = ""
	}
	for i := range in.Snapshot.Regions {
		in.Snapshot.Regions[i].Floor = 1
	}
	return in
}

func build(t testing.TB, in Input) View {
	t.Helper()
	return Build(in, noon)
}
