package metrics

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mayfly/fleetctl/alarm"
	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

var kinds = func() (all []string) {
	for _, k := range alarm.Kinds {
		all = append(all, string(k))
	}
	return all
}()

// gauges are the numbers that come from the last reading. Before there is one there are none.
type gauges struct{ m *Metrics }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

var (
	descRead      = desc("read_timestamp_seconds", "When the fleet was looked at last: older than a minute, and all of this is old.")
	descPolicy    = desc("policy_version", "Version of the signed policy in force.")
	descExpires   = desc("policy_expires_timestamp_seconds", "When it expires.")
	descRelease   = desc("release_in_use", "Version that servers are to run; 0: none.")
	descGood      = desc("release_good", "Newest version that is marked good; 0: none.")
	descBad       = desc("releases_bad", "Releases that are marked bad.")
	descCapacity  = desc("region_capacity_mbps", "Capacity of all servers of a region.", "region")
	descServing   = desc("region_serving_mbps", "Capacity that takes users now.", "region")
	descFloor     = desc("region_floor_mbps", "Capacity that planned removals leave.", "region")
	descOldest    = desc("region_oldest_seconds", "Age of the oldest life of a region.", "region")
	descNearest   = desc("region_nearest_deadline_seconds", "Until the first server of a region ends itself.", "region")
	descServers   = desc("servers", "Servers by state.", "state")
	descAge       = desc("server_age_seconds", "Ages of the servers' lives.")
	descLeft      = desc("server_deadline_seconds", "Until servers end themselves.")
	descFeasible  = desc("rules_feasible", "1 while the rotation rules can be kept with this inventory.")
	descDue       = desc("plan_servers", "Servers by what the planner says of them now.", "reason")
	descNow       = desc("plan_now", "Servers that would go now.")
	descOpen      = desc("region_open", "1 while planned rotations may begin in a region.", "region")
	descWaits     = desc("region_due", "Servers of a region that are due, or in flight.", "region")
	descTook      = desc("plan_seconds", "How long the last plan took to make.")
	descRun       = desc("run_open", "1 while a run is open.")
	descBegan     = desc("run_began_timestamp_seconds", "When the open run began.")
	descCancelled = desc("run_cancelled", "1 while the open run is cancelled.")
	descPaused    = desc("paused", "1 while rotations are paused.")
	descClaims    = desc("claims", "Servers that some controller carries on.")
	descHostsOut  = desc("hosts_out", "Hosts that were let go for their update.")
	descHostsLate = desc("hosts_overdue", "Of those, hosts that should be back.")
	descNext      = desc("schedule_next_timestamp_seconds", "When the schedule of this process begins again; left out without one.")
	descFailures  = desc("schedule_failures", "Scheduled rotations in a row that failed.")
	descLedger    = desc("ledger_size", "Entries of the public ledger.")
	descCosigned  = desc("ledger_cosigned_size", "Of those, entries that the witnesses have cosigned.")
	descStage     = desc("train_stage", "Stage of the train of the release in use, from 1; 0: no train.")
	descStages    = desc("train_stages", "Stages that it has.")
	descReach     = desc("train_reach", "Servers that may boot the release.")
	descAttempts  = desc("train_attempts", "Rotations to it that ended, attempts.")
	descTrFailed  = desc("train_failed", "Of those, that failed.")
	descLower     = desc("train_error_lower", "Lower bound of its error rate.")
	descUpper     = desc("train_error_upper", "Upper bound of its error rate.")
	descVerdict   = desc("train_verdict", "1 for what the gate says.", "verdict")
	descAlarms    = desc("alarms", "Alarms that are not over, by kind.", "kind")
)

func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRead, descPolicy, descExpires, descRelease, descGood, descBad, descCapacity, descServing, descFloor, descOldest,
		descNearest, descServers, descAge, descLeft, descFeasible, descDue, descNow, descOpen, descWaits, descTook, descRun, descBegan, descCancelled, descPaused,
		descClaims, descHostsOut, descHostsLate, descNext, descFailures, descLedger, descCosigned, descStage, descStages, descReach, descAttempts,
		descTrFailed, descLower, descUpper, descVerdict, descAlarms} {
		ch <- d
	}
}

func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	g.m.mu.Lock()
	r := g.m.reading
	g.m.mu.Unlock()
	if r == nil {
		return
	}
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	set(descRead, unix(r.At))
	set(descPolicy, float64(r.Policy))
	set(descExpires, unix(r.PolicyExpires))
	set(descRelease, float64(r.Release))
	set(descGood, float64(r.Good))
	set(descBad, float64(r.Bad))
	set(descFeasible, truth(!r.Refused))
	set(descTook, r.PlanTook.Seconds())
	set(descRun, truth(r.Run))
	if r.Run {
		set(descBegan, unix(r.RunBegan))
	}
	set(descCancelled, truth(r.Cancelled))
	set(descPaused, truth(r.Paused))
	set(descClaims, float64(r.Claims))
	set(descHostsOut, float64(r.HostsOut))
	set(descHostsLate, float64(r.HostsLate))
	if !r.Next.IsZero() {
		set(descNext, unix(r.Next))
	}
	set(descFailures, float64(r.Failures))
	set(descLedger, float64(r.LedgerSize))
	set(descCosigned, float64(r.LedgerKnown))
	g.servers(r, ch, set)
	g.plan(r.Plan, set)
	count := map[string]int{}
	for _, a := range r.Alarms {
		count[string(a.Kind)]++
	}
	for _, k := range kinds {
		set(descAlarms, float64(count[k]), k)
	}
}

type setter = func(d *prometheus.Desc, v float64, labels ...string)

// servers counts them, and names of each region the worst.
func (g *gauges) servers(r *Reading, ch chan<- prometheus.Metric, set setter) {
	type worst struct{ oldest, nearest time.Duration }
	count, regions := map[inventory.State]int{}, map[string]*worst{}
	var ages, lefts []time.Duration
	for _, s := range r.Servers {
		count[s.State]++
		if s.Age < 0 {
			continue
		}
		ages, lefts = append(ages, s.Age), append(lefts, s.Left)
		if w := regions[s.Region]; w == nil {
			regions[s.Region] = &worst{s.Age, s.Left}
		} else {
			w.oldest, w.nearest = max(w.oldest, s.Age), min(w.nearest, s.Left)
		}
	}
	for _, s := range states {
		set(descServers, float64(count[s]), string(s))
	}
	for _, name := range slices.Sorted(maps.Keys(regions)) {
		set(descOldest, regions[name].oldest.Seconds(), name)
		set(descNearest, regions[name].nearest.Seconds(), name)
	}
	ch <- histogram(descAge, ages, ageBounds)
	ch <- histogram(descLeft, lefts, leftBound)
}

func (g *gauges) plan(p plan.Plan, set setter) {
	for _, x := range p.Regions {
		set(descCapacity, float64(x.Capacity), x.Name)
		set(descServing, float64(x.Serving), x.Name)
		set(descFloor, float64(x.Floor), x.Name)
		set(descOpen, truth(x.Open), x.Name)
		set(descWaits, float64(x.Due), x.Name)
	}
	reasons := map[plan.Reason]int{}
	now := 0
	for _, s := range p.Steps {
		reasons[s.Reason]++
		if s.Now {
			now++
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		set(descDue, float64(reasons[reason]), string(reason))
	}
	set(descNow, float64(now))
	t := plan.TrainState{}
	if p.Train != nil {
		t = *p.Train
	}
	set(descStage, float64(t.Number))
	set(descStages, float64(t.Stages))
	set(descReach, float64(t.Reach))
	set(descAttempts, float64(t.Attempts))
	set(descTrFailed, float64(t.Failed))
	set(descLower, t.Lower)
	set(descUpper, t.Upper)
	for _, v := range verdicts {
		set(descVerdict, truth(t.Verdict == v), string(v))
	}
}

func histogram(d *prometheus.Desc, values []time.Duration, bounds []float64) prometheus.Metric {
	buckets, sum := make(map[float64]uint64, len(bounds)), 0.0
	for _, b := range bounds {
		buckets[b] = 0
	}
	for _, v := range values {
		s := v.Seconds()
		sum += s
		for _, b := range bounds {
			if s <= b {
				buckets[b]++
			}
		}
	}
	return prometheus.MustNewConstHistogram(d, uint64(len(values)), sum, buckets)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
