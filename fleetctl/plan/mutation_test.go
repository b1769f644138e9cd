package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
)

// guards are what keeps the promises, each with the test that misses it when it is switched off: the checker of the property tests, by a word of
// the fault it reports, or a table of its own below.
var guards = []struct {
	name string
	by   string // "property: WORD" or "table"
}{
	{"floor", "property: floor"},
	{"role_floor", "property: of role"},
	{"lead", "property: deadlines passed"},
	{"force", "table"},
	{"cap_rack", "property: of rack"},
	{"cap_switch", "property: of switch"},
	{"cap_bmc", "property: of bmc"},
	{"cap_mirror", "property: of mirror"},
	{"window", "property: outside of its windows"},
	{"blackout", "property: outside of its windows"},
	{"rate", "property: within an hour"},
	{"train", "property: beyond stage"},
	{"gate", "property: bad beyond doubt"},
	{"bad", "table"},
	{"spares", "property: a spare comes"},
	{"bastion", "property: a bastion leaves"},
	{"pause", "table"},
	{"head", "table"},
	{"jitter", "table"},
	{"fresh", "table"},
}

// TestMutations: without each guard, some test fails. What cannot fail proves nothing.
func TestMutations(t *testing.T) {
	for _, g := range guards {
		t.Run(g.name, func(t *testing.T) {
			defer func() { off = "" }()
			word, property := strings.CutPrefix(g.by, "property: ")
			if !property {
				if fault := tableFault(t); fault != "" {
					t.Fatalf("with every guard: %s", fault)
				}
				off = g.name
				if fault := tableFault(t); fault == "" {
					t.Error("nothing missed it")
				} else {
					t.Log(fault)
				}
				return
			}
			off = g.name
			for seed := range uint64(2000) {
				c, ok := trialRun(t, seed, false)
				if i := slices.IndexFunc(c.faults, func(f string) bool { return strings.Contains(f, word) }); ok && i >= 0 {
					t.Logf("seed %d: %s", seed, c.faults[i])
					return
				}
			}
			t.Error("nothing missed it")
		})
	}
}

// tableFault says what is wrong with a few plans, "" for nothing.
func tableFault(t testing.TB) string {
	day := 24 * time.Hour
	step := func(s Snapshot, r Rules, h Health, name string) Step {
		p, refused := Make(s, r, h, t0)
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		return p.Steps[slices.IndexFunc(p.Steps, func(x Step) bool { return x.Server == name })]
	}
	se := func(floor int, servers ...Server) Snapshot {
		return Snapshot{Fleet: "f", Release: 7, Good: 7, Regions: []Region{{"se", floor}}, Servers: servers}
	}
	// A closed window whose server would pass its deadline before it opens.
	s := se(0, serving("a", "se", 1000, time.Hour), serving("b", "se", 1000, day))
	r := rules
	r.Windows = []Window{{Days: everyDay, From: 0, To: 11 * 60}, {Days: everyDay, From: 13*60 + 30, To: 24 * 60}}
	if x := step(s, r, healthy(s), "a"); !x.Now || x.Reason != Forced {
		return fmt.Sprintf("force: %+v", x)
	}
	// A release that is marked bad is not booted.
	s = se(0, serving("a", "se", 1000, time.Hour))
	s.Release, s.Good, s.Bad = 8, 7, []uint64{8}
	if x := step(s, rules, healthy(s), "a"); x.Release != 7 {
		return fmt.Sprintf("bad: %+v", x)
	}
	// Nothing begins while it is paused.
	s = se(0, serving("a", "se", 1000, time.Hour), Server{Name: "n", Region: "se", State: inventory.New})
	s.Paused = true
	for _, n := range []string{"a", "n"} {
		if x := step(s, rules, healthy(s), n); x.Now || x.Reason != IsPaused {
			return fmt.Sprintf("pause: %+v", x)
		}
	}
	// Nobody overtakes the head of the line.
	s = se(1000, state(inventory.Booting, serving("a", "se", 1000, day)), serving("b", "se", 1000, time.Hour), serving("c", "se", 400, 2*time.Hour), serving("d", "se", 1, day))
	if x := step(s, rules, healthy(s), "c"); x.Now || x.Reason != Behind {
		return fmt.Sprintf("head: %+v", x)
	}
	// Servers that were booted together do not fall due together, and each at the same moment whenever it is asked.
	s = se(0)
	for i := range 20 {
		s.Servers = append(s.Servers, serving(fmt.Sprintf("s%02d", i), "se", 1, day))
	}
	e, refused := newEngine(s, rules, healthy(s), false, t0, t0)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	starts := map[int64]bool{}
	for i := range e.nodes {
		starts[e.starts(&e.nodes[i])] = true
	}
	if len(starts) < 20 {
		return fmt.Sprintf("jitter: 20 servers are due at %d moments", len(starts))
	}
	// A server that is silent is no capacity.
	s = se(1000, serving("a", "se", 1000, time.Hour), serving("b", "se", 1000, day))
	if x := step(s, rules, Health{"a": t0, "b": t0.Add(-FreshFor - 1)}, "a"); x.Now || x.Reason != Floor {
		return fmt.Sprintf("fresh: %+v", x)
	}
	return ""
}

var everyDay = []time.Weekday{0, 1, 2, 3, 4, 5, 6}
