package plan

import (
	"fmt"
	"slices"
	"time"
)

// why says in words, with the numbers, what holds a server that is due.
func (m *making) why(i int32, h hold) string {
	n := &m.nodes[i]
	q := &m.pools[h.pool]
	loses := int64(0)
	if n.is(live) {
		loses = int64(n.capacity)
	}
	of := ""
	if q.role != "" {
		of = " of role " + q.role
	}
	switch h.reason {
	case IsPaused:
		return "paused: nothing begins until `fleetctl resume`"
	case HereReason:
		return "this controller runs on it: another one takes it out"
	case Bastion:
		return fmt.Sprintf("one bastion at a time (out: %s)", list(m.missingSolos(i, bastionHost)))
	case Controller:
		return fmt.Sprintf("one controller at a time (out: %s)", list(m.missingSolos(i, controlHost)))
	case Floor, RoleHeld:
		return fmt.Sprintf("serving %d - %d = %d%s, under the floor of %d, and nothing in flight mends it (out: %s)",
			q.serving, loses, q.serving-loses, of, q.floor, list(m.failures(n.pool)))
	case Parallel:
		return fmt.Sprintf("max_parallel %d servers are out", m.r.MaxParallel)
	case RateLimit:
		return fmt.Sprintf("max_per_hour %d servers have left in the last hour; there is room at %s", m.r.MaxPerHour, m.clock(n, m.left[m.lefts]+int64(time.Hour)))
	case Closed:
		return "its windows are closed until " + m.clock(n, m.places[n.pool].calendar.opens(m.at))
	case Blacked:
		c := m.places[n.pool].calendar
		return fmt.Sprintf("blackout %s; open next at %s", c.blackout(m.at), m.clock(n, c.opens(m.at)))
	case Capped:
		d := m.domains[h.domain]
		return fmt.Sprintf("%d of %s %s are out, at most %d may be", d.out, kinds[d.kind], d.name, d.max)
	case Behind:
		if h.waits {
			return fmt.Sprintf("serving %d - %d = %d%s, under the floor of %d until %d in flight are back", q.serving, loses, q.serving-loses, of, q.floor, q.back)
		}
		return fmt.Sprintf("%s of region %s goes first", m.s.Servers[q.blocked].Name, m.s.Regions[n.pool].Name)
	}
	return string(h.reason)
}

// clock shows a moment by the clocks of the server's window, and in UTC.
func (e *engine) clock(n *node, at int64) string { return clock(e.places[n.pool].calendar.zone, at) }

func clock(zone *time.Location, at int64) string {
	t := time.Unix(0, at)
	utc := t.UTC().Format("2006-01-02 15:04 UTC")
	if zone == time.UTC {
		return utc
	}
	return t.In(zone).Format("2006-01-02 15:04 MST") + " (" + utc + ")"
}

// missingSolos names the other bastions, or controllers, through which nobody comes now.
func (m *making) missingSolos(but int32, kind mark) []string {
	var names []string
	for i := range m.nodes {
		if n := &m.nodes[i]; n.is(kind) && n.missing() && int32(i) != but {
			names = append(names, m.s.Servers[i].Name)
		}
	}
	return names
}

// failures names the servers of a region that neither serve nor are on their way.
func (m *making) failures(g int32) []string {
	if m.out == nil {
		m.out = map[string][]string{}
		for i := range m.nodes {
			if n := &m.nodes[i]; n.missing() && (n.state != isFlight || n.is(withdrawn)) {
				x := &m.s.Servers[i]
				m.out[x.Region] = append(m.out[x.Region], x.Name)
			}
		}
	}
	return m.out[m.s.Regions[g].Name]
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 5
	names = slices.Sorted(slices.Values(names))
	if len(names) > most {
		return fmt.Sprintf("%v and %d more", names[:most], len(names)-most)
	}
	return fmt.Sprint(names)
}
