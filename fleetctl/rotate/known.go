package rotate

import (
	"context"
	"strconv"
	"sync"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Known is what plans rest on beside the servers: what the store knows of releases, of how rotations ended, and of what people asked for.
type Known struct {
	Use      store.Use // the release in use
	Marks    []store.Mark
	Outcomes []store.Outcome // of the release in use, since it is
	Pause    store.Pause
	Here     string // the server that this controller runs on, "" for none of the fleet
}

// ReadKnown reads it. A store in which no release was ever chosen knows none.
func ReadKnown(ctx context.Context, s store.Store) (Known, error) { return (&trials{}).read(ctx, s) }

// Bad reports whether a release is marked bad.
func (k Known) Bad(version uint64) (store.Mark, bool) {
	for _, m := range k.Marks {
		if m.Version == version && m.Mark == store.Bad {
			return m, true
		}
	}
	return store.Mark{}, false
}

// Good is the newest release that is marked good, other than one that is bad; 0 for none.
func (k Known) Good() uint64 {
	var good uint64
	for _, m := range k.Marks {
		if _, bad := k.Bad(m.Version); m.Mark == store.Good && !bad {
			good = max(good, m.Version)
		}
	}
	return good
}

// Into puts it into a snapshot.
func (k Known) Into(s *plan.Snapshot, servers []store.Server, zones map[string]*time.Location, now time.Time) {
	s.Good, s.Since, s.Paused, s.Here, s.Zones = k.Good(), k.Use.At, k.Pause.On, k.Here, zones
	s.Bad, s.Trials, s.Left = nil, nil, nil
	for _, m := range k.Marks {
		if m.Mark == store.Bad {
			s.Bad = append(s.Bad, m.Version)
		}
	}
	for _, o := range k.Outcomes {
		s.Trials = append(s.Trials, plan.Trial{Server: o.Server, Attempts: o.Attempts, Failed: o.Failed, Served: o.Served, At: o.At})
	}
	s.Left = leftLately(servers, now)
}

// leftLately is when servers left in the last hour, as far as their present lives tell: the drain, or else the boot that came after it, or for one that was not
// booted since when it is out. That is later than they left, so that a rate is rather kept too long than too short.
func leftLately(servers []store.Server, now time.Time) []time.Time {
	var left []time.Time
	for _, s := range servers {
		at := s.BootedAt
		switch s.State {
		case inventory.Draining, inventory.Wiping:
			at = s.Since
		case inventory.Quarantined, inventory.Standby:
			if at.IsZero() {
				at = s.Since
			}
		}
		if !at.IsZero() && now.Sub(at) < time.Hour {
			left = append(left, at)
		}
	}
	return left
}

// trialsOverlap is how far back ends of rotations are read again: controllers' clocks may differ by that much.
const trialsOverlap = 2 * time.Minute

// trials reads what is known, and of ends of rotations only what is new.
type trials struct {
	mu   sync.Mutex // guards the rest
	of   store.Use
	seen map[oneLife]bool
	all  []store.Outcome
}

// oneLife names one life of a server.
type oneLife struct {
	server string
	epoch  uint64
}

func (t *trials) read(ctx context.Context, s store.Store) (k Known, err error) {
	if k.Use, _, err = s.InUse(ctx); err != nil {
		return k, err
	}
	if k.Marks, err = s.Marks(ctx); err != nil {
		return k, err
	}
	if k.Pause, err = s.Paused(ctx); err != nil {
		return k, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of.Version != k.Use.Version || !t.of.At.Equal(k.Use.At) || t.seen == nil {
		t.of, t.seen, t.all = k.Use, map[oneLife]bool{}, nil
	}
	since := k.Use.At
	if n := len(t.all); n > 0 {
		if at := t.all[n-1].At.Add(-trialsOverlap); at.After(since) {
			since = at
		}
	}
	found, err := s.Outcomes(ctx, strconv.FormatUint(k.Use.Version, 10), since)
	if err != nil {
		return k, err
	}
	for _, o := range found {
		id := oneLife{o.Server, o.Epoch}
		if !t.seen[id] {
			t.seen[id] = true
			t.all = append(t.all, o)
		}
	}
	k.Outcomes = t.all[:len(t.all):len(t.all)]
	return k, nil
}
