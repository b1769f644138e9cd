package plan

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"mayfly/inventory"
)

// TestSameDecisions: whatever a simulation has let go by a moment, Make would let nobody else go then: both decide alike, and nothing that may go
// is overlooked by looking only at what has changed.
func TestSameDecisions(t *testing.T) {
	looked, waiting := 0, 0
	for seed := range uint64(120) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		r := rules
		r.MaxAge, r.MaxParallel, r.MaxPerHour = 72*time.Hour, 2+rnd.IntN(3), 4*rnd.IntN(2)
		r.Caps = []Cap{{Domain: "rack", Max: 1 + rnd.IntN(2)}, {Domain: "switch", Max: 2}}
		if rnd.IntN(2) == 0 {
			r.Windows = []Window{{Regions: []string{"r0"}, Days: everyDay, From: 60, To: 22 * 60}}
		}
		s := Snapshot{Fleet: "f", Release: 7, Good: 7}
		for g := range 3 {
			name := fmt.Sprintf("r%d", g)
			for k := range 8 {
				x := serving(fmt.Sprintf("%s-%d", name, k), name, 100*(1+rnd.IntN(3)), time.Duration(30+rnd.IntN(40))*time.Hour)
				x.Release, x.Domains = 7, Domains{Rack: fmt.Sprintf("%s-%d", name, k/3), Switch: fmt.Sprintf("%s-%d", name, k%2)}
				s.Servers = append(s.Servers, x)
			}
			s.Regions = append(s.Regions, Region{name, 600 + rnd.IntN(300)})
		}
		w := &drawn{rnd: rnd, r: r, slow: 0.5, last: map[int]Ending{}, neverQuarantine: true}
		p, refused := NewPlayer(s, r, w, t0, 14*24*time.Hour, nil)
		if len(refused) > 0 {
			continue
		}
		for i := range 100 {
			now := t0.Add(time.Duration(i)*3*time.Hour + time.Duration(rnd.IntN(10000))*time.Second)
			p.Run(now)
			v, h := s, Health{}
			v.Servers, v.Left = nil, nil
			for i, x := range s.Servers {
				n := &p.e.nodes[i]
				x.Epoch, x.Deadline = uint64(n.epoch), time.Unix(0, n.deadline)
				if n.state == isFlight {
					x.State = inventory.Booting
				} else {
					h[x.Name] = now
				}
				if n.is(due) {
					waiting++
				}
				v.Servers = append(v.Servers, x)
			}
			for _, at := range p.e.left {
				if at > now.Add(-time.Hour).UnixNano() {
					v.Left = append(v.Left, time.Unix(0, at))
				}
			}
			plan, refused := Make(v, r, h, now)
			if len(refused) > 0 {
				t.Fatal(refused)
			}
			looked++
			// The simulation's clock has whole seconds: who has become due within the last one goes with the next.
			for _, x := range plan.Now() {
				if early, _ := Make(v, r, h, now.Add(-2*time.Second)); len(early.Now()) > 0 {
					t.Fatalf("seed %d, %v: %+v goes, and the simulation holds it", seed, now.Sub(t0), x)
				}
			}
		}
	}
	if looked < 2000 || waiting < 100 {
		t.Errorf("got %d moments with %d servers due: the test says too little", looked, waiting)
	}
	t.Logf("%d moments, %d servers due or in flight", looked, waiting)
}
