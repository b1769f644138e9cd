package plan

import (
	"testing"
	"time"
)

// TestLostServes: nobody's word makes a server dead that was heard of as ready; a run that has begun holds it.
func TestLostServes(t *testing.T) {
	day := 24 * time.Hour
	s := Snapshot{Fleet: "f", Regions: []Region{{"se", 1500}}, Servers: []Server{
		serving("a", "se", 1000, day), serving("b", "se", 1000, day), serving("c", "se", 1000, day)}}
	r := rules
	r.Lost = []string{"a", "b", "c"}
	h := healthy(s)
	h["c"] = t0.Add(-FreshFor - time.Second)
	p, refused := Make(s, r, h, t0)
	if len(refused) != 2 || refused[0].Code != LostServes || refused[1].Code != LostServes || len(p.Now()) > 0 {
		t.Errorf("got %v, %+v, want a and b refused", refused, p.Now())
	}
	r.Targets = map[string]uint64{"a": 1, "b": 1, "c": 1}
	p, refused = Make(s, r, h, t0)
	if now := p.Now(); len(refused) > 0 || len(now) != 1 || now[0].Server != "c" || now[0].Reason != Lost {
		t.Errorf("a run that has begun: got %v, %+v, want c alone", refused, now)
	}
	for _, x := range p.Steps {
		if x.Server != "c" && (x.Due || x.Reason != LostHeard) {
			t.Errorf("got %+v, want it held", x)
		}
	}
	if p.Regions[0].Serving != 2000 {
		t.Errorf("serving %d, want 2000: a and b serve", p.Regions[0].Serving)
	}
}
