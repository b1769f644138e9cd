package simulate

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
)

// TestRun: a month of a fleet with every rule in use keeps both promises, and the same seed gives the same bytes.
func TestRun(t *testing.T) {
	c := Fleet(3000, 105, start, zones(t))
	r, refused := Run(c)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	if r.Broken != 0 || r.Passed != 0 || r.WorstAge >= c.Rules.MaxAge || r.Rotations < 12000 {
		t.Errorf("got %d floors broken, %d deadlines passed, worst age %v, %d rotations", r.Broken, r.Passed, r.WorstAge, r.Rotations)
	}
	if r.Done.IsZero() || len(r.Train) != 6 {
		t.Errorf("the train ended at %v after %d stages, want 6", r.Done, len(r.Train))
	}
	for _, g := range r.Regions {
		if g.Least < g.Floor {
			t.Errorf("region %s had %d, floor %d", g.Name, g.Least, g.Floor)
		}
	}
	again, _ := Run(c)
	if !reflect.DeepEqual(r, again) || !bytes.Equal(r.SVG(), again.SVG()) || r.Text() != again.Text() {
		t.Error("got two results of one seed")
	}
	c.Seed++
	if other, _ := Run(c); reflect.DeepEqual(r.Samples, other.Samples) {
		t.Error("got one result of two seeds")
	}
}

// TestPatch: an urgent release on three thousand servers, twelve minutes each, floors of 90 %: under four hours.
func TestPatch(t *testing.T) {
	r, refused := Run(Patch(3000, start))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	if took := r.Done.Sub(start); r.Done.IsZero() || took >= 4*time.Hour || r.Rotations < 3000 || r.Broken > 0 {
		t.Errorf("got done after %v, %d rotations, %d floors broken", took, r.Rotations, r.Broken)
	}
}

// TestBadRelease: a release whose boots fail too often is stopped in an early stage, and what ran it goes back.
func TestBadRelease(t *testing.T) {
	c := Fleet(3000, 105, start, zones(t))
	c.Releases[0].Errors = 0.6
	serves := map[int]bool{} // runs release 8
	most := 0
	c.Trace = func(e plan.Event) {
		if e.Kind == "left" || e.Kind == "serves" {
			delete(serves, e.Server)
		}
		if e.Kind == "serves" && e.Release == 8 {
			serves[e.Server] = true
		}
		most = max(most, len(serves))
	}
	r, refused := Run(c)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	if last := r.Train[len(r.Train)-1]; last.Verdict != plan.Stops || last.Reach > 100 {
		t.Errorf("the train ended %+v, want to stop early", last)
	}
	if most == 0 || most > 100 || len(serves) > 0 {
		t.Errorf("at most %d servers ran the bad release at once, %d at the end; want few, then none", most, len(serves))
	}
}

// TestRefused: rules that cannot be kept are not simulated.
func TestRefused(t *testing.T) {
	c := Fleet(3000, 105, start, zones(t))
	c.Snapshot.Regions[7].Floor *= 2
	if _, refused := Run(c); len(refused) != 1 || refused[0].Code != plan.FloorImpossible {
		t.Errorf("got %v", refused)
	}
}

// TestSVG: well-formed, described, and without anything that runs.
func TestSVG(t *testing.T) {
	c := Patch(60, start)
	c.Snapshot.Fleet = `a<b>&"c"`
	r, refused := Run(c)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	svg := r.SVG()
	d := xml.NewDecoder(bytes.NewReader(svg))
	found := map[string]int{}
	for {
		x, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := x.(xml.StartElement); ok {
			found[e.Name.Local]++
			for _, a := range e.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" {
					t.Errorf("%s has %s", e.Name.Local, a.Name.Local)
				}
			}
		}
	}
	if found["title"] != 1 || found["desc"] != 1 || found["polyline"] != 2 || found["script"] != 0 {
		t.Errorf("got %v", found)
	}
	if text := r.Text(); !strings.Contains(text, "floors broken by planned removals: 0") || strings.Count(text, "*") < 20 {
		t.Errorf("got %s", text)
	}
}
