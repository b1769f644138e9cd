package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Verdict is what the gate of a train says.
type Verdict string

// Verdicts.
const (
	Bakes Verdict = "bakes" // the stage is not over
	Goes  Verdict = "goes"  // the next stage may begin
	Holds Verdict = "holds" // undecided: another batch is drawn
	Stops Verdict = "stops" // the release is bad
	Ends  Verdict = "ends"  // every server is reached, and the release is good
)

// TrainState is how far a release has come.
type TrainState struct {
	Release  uint64  `json:"release"`
	From     uint64  `json:"from"`  // what servers boot that it has not reached
	Stage    string  `json:"stage"` // "internal", "canary", "10%"
	Number   int     `json:"number"`
	Stages   int     `json:"stages"`
	Reach    int     `json:"reach"` // servers that may boot it, of Servers
	Servers  int     `json:"servers"`
	Pending  int     `json:"pending"` // of those, not ended yet
	Attempts int     `json:"attempts"`
	Failed   int     `json:"failed"`
	Lower    float64 `json:"lower"` // bounds of the error rate
	Upper    float64 `json:"upper"`
	Verdict  Verdict `json:"verdict"`
	Why      string  `json:"why"`

	Until time.Time `json:"until,omitzero"` // when the stage has baked, if nothing is pending
}

// train is a release on its way. Its order is a hash of server and release, so that no release meets the same servers first, dealt over
// the regions, so that no stage waits long for the floor of one.
type train struct {
	release, from uint64
	rules         Train
	stages        []stage
	ended         []int64 // by rank: when the rotation to it ended; 0: not yet
	order         []int32 // node of each rank
	number        int     // of the stage
	reach         int
	pending       int
	last          int64 // when the last one within reach ended
	attempts      int
	failed        int
	alpha         float64 // of an upper bound, which lets a stage end: one for each stage
	stopped, done bool
	verdict       Verdict
	history       []TrainState // stages that are over

	began, told bool  // simulation: those reached first, and at the end, are due
	waked       int64 // simulation: when it looks next
}

// stage ends at a rank.
type stage struct {
	name string
	to   int
	size int
}

// board begins the train of the release in use, if there is one, and brings it to where the trials say it is.
func (e *engine) board(now time.Time) {
	e.train = nil
	t := e.r.Train
	bad := slices.Contains(e.s.Bad, e.s.Release) && !guardOff("bad")
	if len(t.Steps) == 0 || e.s.Good == 0 || e.s.Good == e.s.Release || bad || len(e.nodes) == 0 {
		return
	}
	e.train = e.newTrain(t)
	names := map[string]int32{}
	if len(e.s.Trials) > 0 {
		for i := range e.s.Servers {
			names[e.s.Servers[i].Name] = int32(i)
		}
	}
	for _, trial := range e.s.Trials {
		i, ok := names[trial.Server]
		if !ok {
			continue // it has left the fleet
		}
		e.train.advance(trial.At.UnixNano())
		e.train.record(e.nodes[i].rank, trial.Attempts, trial.Failed, trial.At.UnixNano())
	}
	for i := range e.nodes { // one that runs it already, by whatever way
		if n := &e.nodes[i]; n.rank >= 0 && n.is(onTarget) && n.state == isServing && e.train.ended[n.rank] == 0 {
			e.train.record(n.rank, 0, 0, e.s.Since.UnixNano())
		}
	}
	e.train.advance(now.UnixNano())
}

func (e *engine) newTrain(rules Train) *train {
	t := &train{release: e.s.Release, from: e.s.Good, rules: rules, verdict: Bakes}
	type place struct {
		ring, hash uint64
		node, pool int32
	}
	line := make([]place, 0, len(e.nodes))
	rings, seed := 0, mix(e.s.Release)
	for i := range e.nodes {
		n := &e.nodes[i]
		n.rank = -1
		if n.is(spare) {
			continue // off most of the time: it has what the others have when the train is through
		}
		p := place{1, mix(n.hash ^ seed), int32(i), n.pool}
		if n.is(internal) {
			p.ring = 0
			rings++
		}
		line = append(line, p)
	}
	slices.SortFunc(line, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.ring, b.ring), cmp.Compare(a.pool, b.pool), cmp.Compare(a.hash, b.hash), cmp.Compare(a.node, b.node))
	})
	for i := 0; i < len(line); { // within a region the order is that of the hash; the k-th of n comes at about k/n of the whole
		n := 1
		for i+n < len(line) && line[i+n].ring == line[i].ring && line[i+n].pool == line[i].pool {
			n++
		}
		shift := mix(uint64(line[i].pool)^seed) >> 32
		for k := range n {
			line[i+k].hash = (uint64(k)<<32 + shift) / uint64(n)
		}
		i += n
	}
	slices.SortFunc(line, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.ring, b.ring), cmp.Compare(a.hash, b.hash), cmp.Compare(a.pool, b.pool), cmp.Compare(a.node, b.node))
	})
	t.order = make([]int32, 0, len(line))
	for _, p := range line[:rings] {
		t.order = append(t.order, p.node)
	}
	canary := map[int32]bool{}
	seen := map[int32]bool{} // regions that have one
	canaries := min(rules.Canaries, len(line)-rings)
	for _, other := range []bool{true, false} { // regions that have none first
		for _, p := range line[rings:] {
			if len(canary) >= canaries {
				break
			}
			if g := e.nodes[p.node].pool; !canary[p.node] && (!other || !seen[g]) {
				seen[g], canary[p.node] = true, true
				t.order = append(t.order, p.node)
			}
		}
	}
	for _, p := range line[rings:] {
		if len(canary) == 0 || !canary[p.node] {
			t.order = append(t.order, p.node)
		}
	}
	for rank, i := range t.order {
		e.nodes[i].rank = int32(rank)
	}
	t.ended = make([]int64, len(t.order))
	add := func(name string, to int) {
		from := 0
		if len(t.stages) > 0 {
			from = t.stages[len(t.stages)-1].to
		}
		if to > from {
			t.stages = append(t.stages, stage{name, to, to - from})
		}
	}
	add("internal", rings)
	add("canary", rings+canaries)
	for _, p := range rules.Steps {
		add(strconv.Itoa(p)+"%", rings+((len(line)-rings)*min(p, 100)+99)/100)
	}
	add("rest", len(line))
	t.alpha = (1 - rules.confidence()) / float64(max(1, len(t.stages)))
	if len(t.stages) > 0 {
		t.extend(t.stages[0].to)
	} else {
		t.done = true
	}
	return t
}

func (t Train) confidence() float64 {
	if t.Confidence == 0 {
		return 0.95
	}
	return t.Confidence
}

// extend lets the release reach further.
func (t *train) extend(to int) {
	for ; t.reach < min(to, len(t.ended)); t.reach++ {
		if t.ended[t.reach] == 0 {
			t.pending++
		} else {
			t.last = max(t.last, t.ended[t.reach])
		}
	}
}

// reaches reports whether a server may boot the release.
func (t *train) reaches(n *node) bool {
	if t.stopped && !guardOff("bad") {
		return false
	}
	return guardOff("train") || t.done || n.rank >= 0 && int(n.rank) < t.reach
}

// record counts how a rotation to the release ended.
func (t *train) record(rank int32, attempts, failed int, at int64) {
	if t.done {
		return // it is no train any more: what fails from now on fails by itself
	}
	t.attempts += attempts
	t.failed += failed
	if rank >= 0 {
		if t.ended[rank] == 0 && int(rank) < t.reach {
			t.pending--
		}
		t.ended[rank] = max(t.ended[rank], at, 1)
		if int(rank) < t.reach {
			t.last = max(t.last, t.ended[rank])
		}
	}
	if failed > 0 {
		t.judge()
	}
}

// judge stops a release that is bad beyond doubt: the lower bound of its error rate is over what is allowed.
func (t *train) judge() {
	if t.stopped || t.done || guardOff("gate") || float64(t.failed) <= t.rules.MaxErrors*float64(t.attempts) {
		return // the lower bound is under the rate
	}
	t.stopped = tail(t.failed, t.attempts, t.rules.MaxErrors) < t.spend()
}

// spend is the chance of being wrong that the look after the last failed boot may take. Looking after every one of them with the same chance would
// stop a good release sooner or later; these sum up to one minus the confidence over all looks that there can be (1 + 1/4 + 1/9 + … is pi²/6, after
// Euler), and the chance that a look stops a release at the allowed rate is at most what it takes, because it depends on nothing but how many boots
// it took to the failed one.
func (t *train) spend() float64 {
	if guardOff("spend") {
		return t.alpha
	}
	k := float64(max(1, t.failed))
	return (1 - t.rules.confidence()) * 6 / (math.Pi * math.Pi * k * k)
}

// baked is when the stage is over, if nothing is pending.
func (t *train) baked() int64 { return t.last + int64(t.rules.Bake) }

// advance goes through every stage that is over at a moment.
func (t *train) advance(now int64) {
	for !t.stopped && !t.done {
		over := t.pending == 0 && now >= t.baked()
		rate := 0.0
		if t.attempts > 0 {
			rate = float64(t.failed) / float64(t.attempts)
		}
		s := t.stages[t.number]
		// A release that is good beyond doubt does not wait for the last tenth of a stage, which a floor may hold for long.
		sure := false
		if !over && t.attempts > 0 && t.pending*10 <= s.size && now >= t.baked() && t.number < len(t.stages)-1 {
			_, upper := bounds(t.failed, t.attempts, t.alpha)
			sure = upper <= t.rules.MaxErrors
		}
		switch {
		case sure || over && rate <= t.rules.MaxErrors || over && guardOff("gate"):
			t.verdict = Goes
			if t.number == len(t.stages)-1 {
				t.done, t.verdict = true, Ends
			}
			t.history = append(t.history, t.state())
			if !t.done {
				t.number++
				t.extend(max(t.stages[t.number].to, t.reach))
			}
		case over && t.reach < len(t.ended):
			t.verdict = Holds
			t.history = append(t.history, t.state())
			t.extend(t.reach + s.size)
		case over:
			t.verdict = Holds
			return // everything runs it, and it is still undecided: more lives will tell
		default:
			t.verdict = Bakes
			return
		}
	}
	if t.stopped && t.verdict != Stops {
		t.verdict = Stops
		t.history = append(t.history, t.state())
	}
}

// state describes the train.
func (t *train) state() TrainState {
	x := TrainState{Release: t.release, From: t.from, Stages: len(t.stages), Reach: t.reach, Servers: len(t.ended), Pending: t.pending,
		Attempts: t.attempts, Failed: t.failed, Verdict: t.verdict}
	x.Lower, _ = bounds(t.failed, t.attempts, t.spend())
	_, x.Upper = bounds(t.failed, t.attempts, t.alpha)
	if len(t.stages) > 0 {
		x.Stage, x.Number = t.stages[t.number].name, t.number+1
	}
	if t.pending == 0 && t.verdict == Bakes && t.last > 0 {
		x.Until = time.Unix(0, t.baked()).UTC()
	}
	rate := fmt.Sprintf("%d of %d boots failed: between %.2f%% (wrong with %.2g) and %.2f%% (wrong with %.2g), where %.4g%% are allowed",
		t.failed, t.attempts, 100*x.Lower, t.spend(), 100*x.Upper, t.alpha, 100*t.rules.MaxErrors)
	switch t.verdict {
	case Bakes:
		x.Why = fmt.Sprintf("%d of %d servers have not ended, then it bakes %v; %s", t.pending, t.reach, t.rules.Bake, rate)
	case Holds:
		x.Why = "undecided, another batch is drawn; " + rate
	case Stops:
		x.Why = "bad beyond doubt; " + rate
	default:
		x.Why = rate
	}
	return x
}
