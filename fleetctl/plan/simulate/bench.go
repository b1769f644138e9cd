package simulate

import (
	"fmt"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

// Fleet is a made-up fleet for measurements, with every rule in use: floors by region and role, caps of racks, switches, BMC networks and
// mirrors, windows in several zones, a blackout, max_per_hour, spares, an internal ring, bastions, and a release that comes by train on the
// tenth day. Zones that are not given stand for UTC.
func Fleet(servers, regions int, start time.Time, zones map[string]*time.Location) Config {
	c := Config{Start: start, Days: 30, Seed: 1, Rules: plan.Rules{
		MaxAge: 7 * 24 * time.Hour, MaxParallel: servers / 8, DrainLimit: 5 * time.Minute, BootLimit: 8 * time.Minute, Bake: 5 * time.Minute, Retries: 1,
		MaxPerHour: servers / 2, MaxSpares: 1,
		Caps:  []plan.Cap{{Domain: "rack", Max: 5}, {Domain: "switch", Max: 16}, {Domain: "bmc", Max: 60}, {Domain: "mirror", Max: servers / 20}},
		Train: plan.Train{Canaries: 3, Steps: []int{1, 10, 50, 100}, Bake: time.Hour, MaxErrors: 0.05, Confidence: 0.95},
	}}
	c.Rules.Blackouts = []plan.Blackout{{Name: "fair", From: start.Add(15 * 24 * time.Hour), To: start.Add(15*24*time.Hour + 12*time.Hour)}}
	c.Failures = Failures{Boot: 12 * time.Minute, Slow: 0.01, Failed: 0.002, Lying: 0.001, Steps: 4, Crashes: 8}
	c.Releases = []Release{{After: 10 * 24 * time.Hour, Version: 8}}
	s := &c.Snapshot
	s.Fleet, s.Release, s.Good, s.Zones = "bench", 7, 7, map[string]*time.Location{}
	places := []string{"Europe/Stockholm", "America/New_York", "Asia/Kolkata", "Australia/Sydney"}
	days := []time.Weekday{0, 1, 2, 3, 4, 5, 6}
	windows := make([]plan.Window, len(places))
	for i, z := range places {
		s.Zones[z] = time.UTC
		if zones[z] != nil {
			s.Zones[z] = zones[z]
		}
		windows[i] = plan.Window{Days: days, From: 0, To: 14 * 60, Zone: z}
	}
	s.Servers = make([]plan.Server, 0, servers)
	for g := range regions {
		name := fmt.Sprintf("r%04d", g)
		windows[g%len(places)].Regions = append(windows[g%len(places)].Regions, name)
		from, to := servers*g/regions, servers*(g+1)/regions
		total, apps := 0, 0
		var rack, sw, bmc, mirror string
		for i := from; i < to; i++ {
			k := i - from
			if k%20 == 0 {
				rack = fmt.Sprintf("%s-k%d", name, k/20)
			}
			if k%80 == 0 {
				sw = fmt.Sprintf("%s-s%d", name, k/80)
			}
			if k%250 == 0 {
				bmc = fmt.Sprintf("%s-b%d", name, k/250)
			}
			if mirror == "" {
				mirror = fmt.Sprintf("m%d", g%10)
			}
			x := plan.Server{Name: fmt.Sprintf("s%07d", i), Region: name, Role: "vpn", Capacity: 1000, Epoch: 1, Release: 7, State: inventory.Serving,
				Domains: plan.Domains{Rack: rack, Switch: sw, BMC: bmc, Mirror: mirror}}
			x.Deadline = start.Add(c.Rules.MaxAge/2 + time.Duration(uint64(i)*2654435761%uint64(c.Rules.MaxAge/2)))
			switch {
			case g == 0 && k < 2:
				x.Internal = true
			case g < 4 && k == 2:
				x.Bastion, x.Role, x.Capacity = true, "bastion", 0
			case k == 3:
				x.Spare, x.State, x.Epoch, x.Deadline = true, inventory.Standby, 0, time.Time{}
			case k%4 == 0:
				x.Role = "exit"
				apps += x.Capacity
				total += x.Capacity
			default:
				total += x.Capacity
			}
			s.Servers = append(s.Servers, x)
		}
		s.Regions = append(s.Regions, plan.Region{Name: name, Floor: total * 9 / 10})
		c.Rules.Floors = append(c.Rules.Floors, plan.RoleFloor{Region: name, Role: "exit", Mbps: apps * 6 / 10})
	}
	c.Rules.Windows = windows
	return c
}

// Patch is an urgent release on servers in regions of thirty: twelve minutes each, under floors of 90 %, through a short train.
func Patch(servers int, start time.Time) Config {
	c := Config{Start: start, Hours: 12, Seed: 1, Rules: plan.Rules{
		MaxAge: 7 * 24 * time.Hour, MaxParallel: 1000, DrainLimit: 2 * time.Minute, BootLimit: 5 * time.Minute, Bake: 4 * time.Minute, Mode: plan.Upgrade,
		Train: plan.Train{Canaries: 3, Steps: []int{1, 10, 50, 100}, Bake: 5 * time.Minute, MaxErrors: 0.05, Confidence: 0.95},
	}, Releases: []Release{{Version: 8}}}
	c.Failures.Fixed = 12 * time.Minute
	s := &c.Snapshot
	s.Fleet, s.Release, s.Good = "patch", 7, 7
	for g := range (servers + 29) / 30 {
		name, total := fmt.Sprintf("r%04d", g), 0
		for i := g * 30; i < min(servers, g*30+30); i++ {
			s.Servers = append(s.Servers, plan.Server{Name: fmt.Sprintf("s%07d", i), Region: name, Capacity: 1000, Epoch: 1, Release: 7,
				State: inventory.Serving, Deadline: start.Add(6 * 24 * time.Hour)})
			total += 1000
		}
		s.Regions = append(s.Regions, plan.Region{Name: name, Floor: total * 9 / 10})
	}
	return c
}
