package plan

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// ride brings a train through its fleet with a share of failed boots, and reports whether it was stopped.
func (t *train) ride(errors float64, retries int, rnd *rand.Rand) bool {
	step := int64(t.rules.Bake) + 1
	for now, before := step, -1; !t.stopped && !t.done && t.reach != before; now += step {
		for rank := max(0, before); rank < t.reach && !t.stopped; rank++ {
			failed, served := 0, 0
			for range retries + 1 {
				if rnd.Float64() >= errors {
					served = 1
					break
				}
				failed++
			}
			t.record(int32(rank), failed+served, failed, now)
		}
		before = t.reach
		t.advance(now + step - 1)
	}
	return t.stopped
}

// stoppedTrains are how many of so many releases with a share of failed boots are stopped, in a fleet of 600.
func stoppedTrains(t testing.TB, r Train, errors float64, runs int) int {
	s := Snapshot{Fleet: "f", Release: 8, Good: 7}
	for g := range 6 {
		s.Regions = append(s.Regions, Region{Name: fmt.Sprintf("r%d", g)})
	}
	for i := range 600 {
		s.Servers = append(s.Servers, serving(fmt.Sprintf("s%03d", i), s.Regions[i%6].Name, 100, 20*time.Hour))
	}
	all := rules
	all.Train, all.MaxParallel = r, 600
	e, refused := newEngine(s, all, healthy(s), false, t0, t0)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	first, stopped := e.newTrain(r), 0
	for seed := range uint64(runs) {
		again := *first
		again.ended = make([]int64, len(first.ended))
		if again.ride(errors, int(seed%2), rand.New(rand.NewPCG(seed, 3))) {
			stopped++
		}
	}
	return stopped
}

// TestGateHonest: a release that fails just as often as it may is stopped with the chance that the policy's confidence leaves at most, though the gate
// looks after every failed boot; one that fails much more often is stopped nearly always. Looks that each take a stage's share, as if nobody looked in
// between, stop more good ones than that: the test can fail.
func TestGateHonest(t *testing.T) {
	defer func() { off = "" }()
	worst := 0
	for i, tt := range []struct {
		max, confidence float64
	}{{0.05, 0.95}, {0.02, 0.9}, {0.1, 0.99}, {0.3, 0.8}} {
		r := Train{Canaries: 3, Steps: []int{1, 10, 50, 100}, Bake: time.Hour, MaxErrors: tt.max, Confidence: tt.confidence}
		runs, few := gateRuns, gateRuns/10
		if i > 0 {
			runs = gateRuns / 5
		}
		allowed := int((1 - tt.confidence) * float64(runs))
		off = ""
		good, bad := stoppedTrains(t, r, tt.max*0.999, runs), stoppedTrains(t, r, min(0.9, 4*tt.max), few)
		off = "spend"
		without := stoppedTrains(t, r, tt.max*0.999, few)
		t.Logf("max_errors %v, confidence %v: %d of %d good releases stopped, %d of %d bad ones; %d of %d good ones if every look took a stage's share",
			tt.max, tt.confidence, good, runs, bad, few, without, few)
		if good > allowed {
			t.Errorf("max_errors %v, confidence %v: %d of %d good releases were stopped, at most %d may be", tt.max, tt.confidence, good, runs, allowed)
		}
		if bad < few*99/100 {
			t.Errorf("max_errors %v, confidence %v: %d of %d bad releases were stopped", tt.max, tt.confidence, bad, few)
		}
		worst = max(worst, int(100*float64(without)/float64(few)/(1-tt.confidence)))
	}
	if worst <= 100 {
		t.Errorf("without the spending, %d %% of the allowed number of good releases were stopped: the test says nothing", worst)
	}
}
