package plan

import (
	"fmt"
	"slices"
)

// shape is a fleet as the arithmetic sees it: how many servers of what size share what.
type shape struct {
	s         Snapshot
	r         Rules
	nodes     []node
	pools     []pool
	sizes     []size // of the pools
	domains   []domain
	regions   []ground
	calendars []*calendar
	solos     [2]int // bastions, controllers' hosts
	far       int64  // calendars are to be trusted so far
}

// size is what a pool's servers come to.
type size struct {
	servers int
	biggest int64
	name    string // of the biggest; of equals the first by name
}

// ground is a region beside its pool.
type ground struct {
	roles  []int32  // pools
	worst  [4]int32 // domain of each kind that takes the most rounds; -1
	solos  [2]bool
	spares []int64 // their capacities, largest first
	reach  int64   // open time before its deadline in which a server is due, where half an age has too little of it; 0: half an age has enough
}

// measure sorts servers into regions, roles and domains. It makes the nodes and fills in who belongs where.
func measure(s Snapshot, r Rules) (*shape, Refusals) {
	if refused := malformed(s, r); len(refused) > 0 {
		return nil, refused
	}
	sh := &shape{s: s, r: r, regions: make([]ground, len(s.Regions)), nodes: make([]node, len(s.Servers))}
	at := make(map[string]int32, len(s.Regions))
	var refused Refusals
	for i, g := range s.Regions {
		if _, twice := at[g.Name]; twice {
			refused = append(refused, Refusal{Code: RulesMalformed, Region: g.Name, Detail: fmt.Sprintf("region %q is there twice", g.Name)})
		}
		at[g.Name] = int32(i)
		floor := int64(g.Floor)
		for _, f := range r.Floors {
			if f.Role == "" && (f.Region == "" || f.Region == g.Name) {
				floor = max(floor, int64(f.Mbps))
			}
		}
		sh.pools = append(sh.pools, pool{region: int32(i), floor: floor})
		sh.regions[i].worst = [4]int32{-1, -1, -1, -1}
	}
	type roleOf struct {
		region int32
		role   string
	}
	roles := map[roleOf]int32{}
	for i := range s.Regions {
		for _, f := range r.Floors {
			if f.Role == "" || f.Region != "" && f.Region != s.Regions[i].Name {
				continue
			}
			key := roleOf{int32(i), f.Role}
			if p, ok := roles[key]; ok {
				sh.pools[p].floor = max(sh.pools[p].floor, int64(f.Mbps))
				continue
			}
			p := int32(len(sh.pools))
			roles[key] = p
			sh.pools = append(sh.pools, pool{region: int32(i), role: f.Role, floor: int64(f.Mbps)})
			sh.regions[i].roles = append(sh.regions[i].roles, p)
		}
	}
	sh.sizes = make([]size, len(sh.pools))
	var known [4]map[string]int32
	var capped [4]bool
	for k := range kinds {
		known[k] = map[string]int32{}
		capped[k] = slices.ContainsFunc(r.Caps, func(c Cap) bool { return c.Domain == kinds[k] })
	}
	seen := newNames(len(s.Servers))
	lastRegion, lastAt := "", int32(-1)
	for i := range s.Servers {
		x, n := &s.Servers[i], &sh.nodes[i]
		n.hash = hashName(x.Name)
		if seen.add(s.Servers, n.hash, int32(i)) {
			refused = append(refused, Refusal{Code: RulesMalformed, Region: x.Region, Detail: fmt.Sprintf("server %s is there twice", x.Name)})
			continue
		}
		if lastAt < 0 || x.Region != lastRegion {
			g, ok := at[x.Region]
			if !ok {
				refused = append(refused, Refusal{Code: RulesMalformed, Region: x.Region, Detail: fmt.Sprintf("server %s is in region %q, which does not exist", x.Name, x.Region)})
				continue
			}
			lastRegion, lastAt = x.Region, g
		}
		n.capacity, n.pool, n.role = int32(x.Capacity), lastAt, -1
		n.set(bastionHost, x.Bastion)
		n.set(controlHost, x.Control)
		n.set(solo, x.Bastion || x.Control)
		n.set(internal, x.Internal)
		n.set(spare, x.Spare)
		if p, ok := roles[roleOf{lastAt, x.Role}]; ok && len(roles) > 0 {
			n.role = p
		}
		g := &sh.regions[lastAt]
		for k, solo := range [2]bool{x.Bastion, x.Control} {
			if solo {
				sh.solos[k]++
				g.solos[k] = true
			}
		}
		if x.Spare {
			g.spares = append(g.spares, int64(x.Capacity))
		}
		for k := range kinds {
			n.domain[k] = -1
			name := x.Domains.of(k)
			if !capped[k] || name == "" {
				continue
			}
			d, ok := known[k][name]
			if !ok {
				d = -1
				limit := int32(0)
				for _, c := range r.Caps {
					if c.Domain == kinds[k] && (c.Name == "" || c.Name == name) && (limit == 0 || int32(c.Max) < limit) {
						limit = int32(c.Max)
					}
				}
				if limit > 0 {
					d = int32(len(sh.domains))
					sh.domains = append(sh.domains, domain{kind: int8(k), name: name, max: limit})
				}
				known[k][name] = d
			}
			if n.domain[k] = d; d >= 0 {
				sh.domains[d].size++
			}
		}
		if !x.Internal && !x.Spare {
			sh.add(n.pool, x.Capacity, x.Name)
			if n.role >= 0 {
				sh.add(n.role, x.Capacity, x.Name)
			}
		}
	}
	if len(refused) > 0 {
		refused.sort()
		return nil, refused
	}
	for i := range sh.nodes {
		for k, d := range sh.nodes[i].domain {
			if d < 0 {
				continue
			}
			if w := &sh.regions[sh.nodes[i].pool].worst[k]; *w < 0 || sh.domains[d].rounds() > sh.domains[*w].rounds() ||
				sh.domains[d].rounds() == sh.domains[*w].rounds() && sh.domains[d].name < sh.domains[*w].name {
				*w = d
			}
		}
	}
	for i := range sh.regions {
		slices.Sort(sh.regions[i].spares)
		slices.Reverse(sh.regions[i].spares)
	}
	return sh, nil
}

// names is a set of servers' names by their hashes, smaller and quicker than a map of a million strings.
type names []int32 // server + 1; 0: free

func newNames(n int) names {
	size := 16
	for size < 2*n {
		size *= 2
	}
	return make(names, size)
}

// add reports whether the name was there already.
func (t names) add(servers []Server, hash uint64, i int32) bool {
	for at := mix(hash) & uint64(len(t)-1); ; at = (at + 1) & uint64(len(t)-1) {
		switch {
		case t[at] == 0:
			t[at] = i + 1
			return false
		case servers[t[at]-1].Name == servers[i].Name:
			return true
		}
	}
}

func (sh *shape) add(p int32, capacity int, name string) {
	q, z := &sh.pools[p], &sh.sizes[p]
	q.total += int64(capacity)
	if z.servers == 0 || int32(capacity) < q.least {
		q.least = int32(capacity)
	}
	if c := int64(capacity); z.servers == 0 || c > z.biggest || c == z.biggest && name < z.name {
		z.biggest, z.name = c, name
	}
	z.servers++
}

func (d domain) rounds() int { return rounds(int(d.size), int(d.max)) }

// rounds is n things, k at a time, rounded up.
func rounds(n, k int) int { return (n + k - 1) / k }

// surge is what spares add to a region while others are out.
func (sh *shape) surge(g int) int64 {
	sum := int64(0)
	for _, c := range sh.regions[g].spares[:min(len(sh.regions[g].spares), sh.r.MaxSpares)] {
		sum += c
	}
	return sum
}

// width is how many servers of a pool may be out at once, at least.
func (sh *shape) width(p int32) int {
	q, z := sh.pools[p], sh.sizes[p]
	if z.biggest == 0 {
		return z.servers
	}
	room := q.total - q.floor
	if q.role == "" {
		room += sh.surge(int(p))
	}
	return int(min(int64(z.servers), room/z.biggest))
}
