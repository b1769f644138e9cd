package policies

import (
	"fmt"
	"slices"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Domains that a cap may name: what servers share, so that they fail together.
const (
	DomainRack   = "rack"
	DomainSwitch = "switch"
	DomainBMC    = "bmc"
	DomainMirror = "mirror"
)

// Domains are all of them.
var Domains = []string{DomainRack, DomainSwitch, DomainBMC, DomainMirror}

// Bounds of the lists of rules.
const (
	maxFloors = 1000
	maxCaps   = 1000
	maxOut    = 1000 // servers of one domain
)

// where is what the rotation rules may name in a fleet.
type where struct {
	regions map[string]bool
	domains map[string]map[string]bool // by domain: the names that servers have
	total   map[string]int             // by region: capacity that floors are a share of
	users   int                        // regions with servers that have users
}

func newWhere(f inventory.Fleet) where {
	w := where{regions: map[string]bool{}, domains: map[string]map[string]bool{}, total: map[string]int{}}
	for _, d := range Domains {
		w.domains[d] = map[string]bool{}
	}
	for _, r := range f.Regions {
		w.regions[r.Name] = true
	}
	regionOf := f.RackRegions()
	for _, s := range f.Rebuilt() {
		region := regionOf[s.Rack]
		for _, d := range Domains {
			if name := f.DomainOf(s, d); name != "" {
				w.domains[d][name] = true
			}
		}
		if s.Counted() {
			if w.total[region] == 0 {
				w.users++
			}
			w.total[region] += s.Capacity
		}
	}
	return w
}

// checkRegions checks the regions that a window or blackout names.
func (w where) checkRegions(path string, regions []string) error {
	for i, r := range regions {
		if at := fmt.Sprintf("%s.regions[%d]", path, i); !w.regions[r] {
			return tomlfile.At(at, "add a [[region]] of that name to fleet.toml, or correct it", "region %q does not exist", r)
		} else if slices.Contains(regions[:i], r) {
			return tomlfile.At(at, "each region once", "region %q is there twice", r)
		}
	}
	return nil
}

func (r Rotation) checkFloors(w where) error {
	if len(r.Floors) > maxFloors {
		return tomlfile.At("rotation.floor", "one without a region holds for each", "%d floors: at most %d", len(r.Floors), maxFloors)
	}
	for i, x := range r.Floors {
		path := fmt.Sprintf("rotation.floor[%d]", i)
		if x.Region != "" && !w.regions[x.Region] {
			return tomlfile.At(path+".region", "add a [[region]] of that name to fleet.toml, or correct it", "region %q does not exist", x.Region)
		}
		if x.Role != "" && x.Role != inventory.RoleVPN {
			return tomlfile.At(path+".role", "role = \"vpn\", or leave it out", "role %q has no capacity: a floor is of servers that carry traffic", x.Role)
		}
		if x.Floor.Mbps < 0 || x.Floor.Mbps > inventory.MaxCapacity || x.Floor.Percent < 0 || x.Floor.Percent > 100 {
			return tomlfile.At(path+".floor", "floor = 1000 (Mbit/s) or floor = \"50%\"", "the floor is out of range")
		}
		if x.Floor == (inventory.Floor{}) {
			return tomlfile.At(path, "floor = 1000 (Mbit/s) or floor = \"50%\"; or remove the table", "the floor is 0, which keeps nothing")
		}
		if slices.ContainsFunc(r.Floors[:i], func(o Floor) bool { return o.Region == x.Region && o.Role == x.Role }) {
			return tomlfile.At(path, "each place once", "the floor of region %q and role %q is there twice", x.Region, x.Role)
		}
		if total := w.total[x.Region]; x.Region != "" && x.Floor.Of(total) > total {
			return tomlfile.At(path+".floor", "lower the floor or add servers", "region %q can never keep this floor: its servers have %d Mbit/s, the floor is %d", x.Region, total, x.Floor.Of(total))
		}
	}
	return nil
}

func (r Rotation) checkCaps(w where) error {
	if len(r.Caps) > maxCaps {
		return tomlfile.At("rotation.cap", "one without a name holds for each", "%d caps: at most %d", len(r.Caps), maxCaps)
	}
	for i, x := range r.Caps {
		path := fmt.Sprintf("rotation.cap[%d]", i)
		names, ok := w.domains[x.Domain]
		if !ok {
			return tomlfile.At(path+".domain", "domain = \"rack\", \"switch\", \"bmc\" or \"mirror\"", "domain %q does not exist", x.Domain)
		}
		if x.Name != "" && !names[x.Name] {
			return tomlfile.At(path+".name", "name one that a [[server]] has, or leave it out for each", "no server has the %s %q", x.Domain, x.Name)
		}
		if x.Name == "" && len(names) == 0 {
			return tomlfile.At(path+".domain", "say it of the servers in fleet.toml, or remove the cap", "no server has a %s, so this cap would never hold anybody back", x.Domain)
		}
		if x.Max < 1 || x.Max > maxOut {
			return tomlfile.At(path+".max", "max = 1 is the careful choice", "the cap's max is %d: 1 to %d", x.Max, maxOut)
		}
		if slices.ContainsFunc(r.Caps[:i], func(o Cap) bool { return o.Domain == x.Domain && o.Name == x.Name }) {
			return tomlfile.At(path, "each domain and name once", "the cap of %s %q is there twice", x.Domain, x.Name)
		}
	}
	return nil
}
