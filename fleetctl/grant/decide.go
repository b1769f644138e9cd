package grant

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

// Ground is what a decision rests on.
type Ground struct {
	Fleet    inventory.Fleet
	Rules    plan.Rules
	Snapshot plan.Snapshot // of the servers that mayfly rebuilds
	Health   plan.Health
}

// hostAge is a deadline for the planner's arithmetic alone: nobody ends a host for its age.
const hostAge = 90 * 24 * time.Hour

// decide asks the planner whether a host may go at now, while others are out. It is plan.Make's decision for one server that was asked for by name: floors of
// role host, caps, windows, blackouts, max_parallel and the pause hold; max_age, retries and the train are no host's.
func decide(g Ground, host string, out []Lease, now time.Time) (plan.Step, error) {
	s, r := g.Snapshot, g.Rules
	s.Release, s.Good, s.Bad, s.Trials, s.Here = 0, 0, nil, nil, ""
	s.Regions = nil
	for _, x := range g.Fleet.Regions {
		s.Regions = append(s.Regions, plan.Region{Name: x.Name}) // its floor is of what mayfly rebuilds
	}
	s.Servers = nil
	for _, x := range g.Snapshot.Servers {
		// Those that are out share racks and networks with hosts, and take a place of max_parallel. They carry nothing of the hosts' capacity.
		if x.State.InFlight() || x.State == inventory.Quarantined {
			s.Servers = append(s.Servers, plan.Server{Name: x.Name, Region: x.Region, Role: x.Role, Domains: x.Domains, State: x.State, Epoch: x.Epoch, Deadline: now.Add(hostAge)})
		}
	}
	region := map[string]string{}
	for _, x := range g.Fleet.Racks {
		region[x.Name] = x.Region
	}
	h := plan.Health{}
	for _, x := range g.Fleet.Asking() {
		p := plan.Server{Name: x.Name, Region: region[x.Rack], Capacity: x.Capacity, Role: inventory.RoleHost, State: inventory.Serving, Epoch: 1, Deadline: now.Add(hostAge),
			Domains: plan.Domains{Rack: x.Rack, Switch: x.Switch, BMC: x.BMCNetwork, Mirror: x.Mirror}}
		i := slices.IndexFunc(out, func(l Lease) bool { return l.Host == x.Name })
		switch {
		case i < 0:
			h[x.Name] = now // nothing is known of it but that it is not out
		case out[i].Overdue:
			p.State = inventory.Quarantined // gone, and in nobody's way but the floor's and the caps'
		default:
			p.State = inventory.Draining
		}
		s.Servers = append(s.Servers, p)
	}
	r.MaxAge, r.Train, r.MaxSpares, r.Retry, r.Lost = hostAge, plan.Train{}, 0, false, nil
	r.Mode, r.Only, r.All, r.Targets = plan.Single, []string{host}, false, map[string]uint64{host: 1}
	r.Floors = slices.DeleteFunc(slices.Clone(r.Floors), func(f plan.RoleFloor) bool { return f.Role != inventory.RoleHost })
	p, refused := plan.Make(s, r, h, now)
	if len(refused) > 0 {
		return plan.Step{Server: host, Reason: plan.Reason(refused[0].Code), Why: refused[0].Detail}, nil
	}
	for _, step := range p.Steps {
		if step.Server == host {
			if !step.Now && len(out) > 0 {
				step.Why += fmt.Sprintf(" (let go: %s)", names(out))
			}
			return step, nil
		}
	}
	return plan.Step{}, fmt.Errorf("host %q is in no region", host)
}

// names are those of a few leases, with since when they last.
func names(out []Lease) string {
	const few = 4
	var list []string
	for i, l := range out {
		if i == few {
			list = append(list, fmt.Sprintf("and %d more", len(out)-few))
			break
		}
		list = append(list, fmt.Sprintf("%s since %s", l.Host, l.Since.UTC().Format(time.RFC3339)))
	}
	return strings.Join(list, ", ")
}
