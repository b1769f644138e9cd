package rotate

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/rebuild/release"
)

// Rules are the policy's rules in the planner's words, in this fleet; a release that allows less age wins. A policy that has none of the newer rules
// gives the rules that it always gave.
func Rules(f inventory.Fleet, p policies.Rotation, release *release.Statement) plan.Rules {
	r := plan.Rules{
		MaxAge:      time.Duration(p.MaxAge),
		MaxParallel: p.MaxParallel,
		DrainLimit:  time.Duration(p.DrainLimit),
		BootLimit:   time.Duration(p.BootLimit),
		Bake:        time.Duration(p.Bake),
		Retries:     p.Retries,
		MaxPerHour:  p.MaxPerHour,
		MaxSpares:   p.MaxSpares,
		Floors:      roleFloors(f, p.Floors),
		Train:       train(p.Train),
	}
	for _, c := range p.Caps {
		r.Caps = append(r.Caps, plan.Cap{Domain: c.Domain, Name: c.Name, Max: c.Max})
	}
	for _, w := range p.Windows {
		from, to := w.Minutes()
		r.Windows = append(r.Windows, plan.Window{Regions: slices.Clone(w.Regions), Days: w.Weekdays(), From: from, To: to, Zone: w.Zone})
	}
	for _, b := range p.Blackouts {
		r.Blackouts = append(r.Blackouts, plan.Blackout{Name: b.Name, Regions: slices.Clone(b.Regions), From: b.From, To: b.To})
	}
	if release != nil {
		if age := time.Duration(release.MaxAge) * time.Second; age > 0 {
			r.MaxAge = min(r.MaxAge, age)
		}
	}
	return r
}

func train(t policies.Train) plan.Train {
	if t.IsZero() {
		return plan.Train{}
	}
	c := t.Confidence
	if c == 0 || math.IsNaN(c) {
		c = policies.DefaultConfidence
	}
	return plan.Train{Canaries: t.Canaries, Steps: slices.Clone(t.Steps), Bake: time.Duration(t.Bake), MaxErrors: t.MaxErrors, Confidence: c}
}

// roleFloors are the policy's floors of one role in each region that has it, in the fleet's order: those of all roles together are the regions' own (Whole).
func roleFloors(f inventory.Fleet, floors []policies.Floor) []plan.RoleFloor {
	var list []plan.RoleFloor
	total := f.Capacities()
	for _, x := range floors {
		if x.Role == "" {
			continue
		}
		for _, g := range f.Regions {
			if mbps := x.Floor.Of(total[g.Name]); mbps > 0 && (x.Region == g.Name || x.Region == "" && total[g.Name] > 0) {
				list = append(list, plan.RoleFloor{Region: g.Name, Role: x.Role, Mbps: mbps})
			}
		}
	}
	return list
}

// Whole is a fleet in which every server serves, and every spare stands by: what the rules have to hold for. A region's floor is the higher one of
// its own and of the policy's for all roles together; a floor for each region is none where nothing has users.
func Whole(f inventory.Fleet, p policies.Rotation) plan.Snapshot {
	s := plan.Snapshot{Fleet: f.Name}
	total, regionOf := f.Capacities(), f.RackRegions()
	for _, g := range f.Regions {
		floor := g.Floor.Of(total[g.Name])
		for _, x := range p.Floors {
			if x.Role == "" && (x.Region == g.Name || x.Region == "" && total[g.Name] > 0) {
				floor = max(floor, x.Floor.Of(total[g.Name]))
			}
		}
		s.Regions = append(s.Regions, plan.Region{Name: g.Name, Floor: floor})
	}
	for _, x := range f.Rebuilt() {
		y := plan.Server{Name: x.Name, Region: regionOf[x.Rack], Capacity: x.Capacity, Role: x.Role,
			Bastion: x.Role == inventory.RoleBastion, Control: x.Role == inventory.RoleController, Internal: x.Internal(), Spare: x.Spare,
			Domains: plan.Domains{Rack: x.Rack, Switch: x.Switch, BMC: x.BMCNetwork, Mirror: f.FirstMirror(x)},
			State:   inventory.Serving, Epoch: 1}
		if x.Spare {
			y.State = inventory.Standby
		}
		s.Servers = append(s.Servers, y)
	}
	return s
}

// Here is the server of the fleet that a controller with these addresses runs on, "" for none: it is another controller's to take out.
func Here(f inventory.Fleet, own []netip.Addr) string {
	for _, s := range f.Rebuilt() {
		if s.Role == inventory.RoleController && slices.Contains(own, s.Address.Addr().Unmap()) {
			return s.Name
		}
	}
	return ""
}
