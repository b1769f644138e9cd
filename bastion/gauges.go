package bastion

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mayfly/policies"
)

// gauges are the numbers that are looked up when somebody asks.
type gauges struct{ server *Server }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("mayfly_bastion_"+name, help, labels, nil)
}

var (
	descSessions    = describe("sessions", "Who is in, by kind of identity.", "identity")
	descTargets     = describe("targets_open", "Targets open now.")
	descBytes       = describe("bytes_total", "Bytes carried: up is to servers.", "direction")
	descHalfOpen    = describe("half_open", "Connections that have not authenticated.")
	descHalfMost    = describe("half_open_limit", "Places for them.")
	descPenalties   = describe("penalties", "Sources that are refused for a while.")
	descDropped     = describe("dropped_segments_total", "Segments that the kernel dropped by the address filter.")
	descAuditOK     = describe("audit_healthy", "1 while the audit log takes records and signs them.")
	descPolicy      = describe("policy_version", "Version of the policy in force.")
	descPolicyEnd   = describe("policy_expires_timestamp_seconds", "When the policy in force expires.")
	descCertificate = describe("host_certificate_expires_timestamp_seconds", "When the host certificate expires.")
	descWitnessed   = describe("witness_confirmed", "1 while enough witnesses confirm the policy in force, or none are asked for.")
	descWitnessEnd  = describe("witness_confirmed_until_timestamp_seconds", "Sessions begin until then; left out where no witness is asked.")
	descStatements  = describe("statements", "Signed statements beside the policy, by kind.", "kind")
	descDraining    = describe("draining", "1 while nobody is accepted any more.")
	descBegan       = describe("start_timestamp_seconds", "When this process began.")
	descAlerts      = describe("alerts_delivering", "1 while bastion-alerts takes alerts; left out where none are configured.")
	descPlugins     = describe("plugins_working", "1 while the host of plugins runs; left out where neither policy nor configuration has any.")
	descConfined    = describe("sandbox_missing", "Parts of the sandbox that this kernel cannot enforce; left out where it is off.")
)

func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSessions, descTargets, descBytes, descHalfOpen, descHalfMost, descPenalties, descDropped, descAuditOK, descPolicy,
		descPolicyEnd, descCertificate, descWitnessed, descWitnessEnd, descStatements, descDraining, descBegan, descAlerts, descPlugins, descConfined} {
		ch <- d
	}
}

func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	s, now := g.server, time.Now()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	total := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	r := s.ruling.Load()
	in, open, up, down := s.carried()
	for _, k := range []policies.Kind{policies.KindEngineer, policies.KindRobot, policies.KindBreakGlass} {
		gauge(descSessions, float64(in[k]), string(k))
	}
	gauge(descTargets, float64(open))
	total(descBytes, float64(up), "up")
	total(descBytes, float64(down), "down")
	s.startups.mu.Lock()
	half := len(s.startups.all)
	s.startups.mu.Unlock()
	gauge(descHalfOpen, float64(half))
	gauge(descHalfMost, float64(r.limits.MaxStartups))
	_, penalised := s.penalties.list(0, now)
	gauge(descPenalties, float64(penalised))
	total(descDropped, float64(s.drops.Load()))
	gauge(descAuditOK, truth(s.auditWorks()))
	gauge(descPolicy, float64(r.bundle.Version))
	gauge(descPolicyEnd, unixSeconds(r.bundle.Expires))
	gauge(descCertificate, unixSeconds(r.keys.validBefore()))
	last, until := r.fresh.state()
	gauge(descWitnessed, truth(last.Fresh || !r.fresh.needed()))
	if r.fresh.needed() {
		gauge(descWitnessEnd, unixSeconds(until))
	}
	gauge(descStatements, float64(len(r.statements.Approvals)), "approval")
	gauge(descStatements, float64(len(r.statements.Openings)), "break_glass")
	gauge(descStatements, float64(len(r.statements.Drained)), "drained")
	gauge(descDraining, truth(!s.drain.end().IsZero()))
	gauge(descBegan, unixSeconds(s.began))
	if s.alerts != nil {
		gauge(descAlerts, truth(s.alerts.delivering()))
	}
	if p := s.pluginsStatus(r); p != nil {
		gauge(descPlugins, truth(p.Works))
	}
	if s.confined != nil {
		gauge(descConfined, float64(len(s.confined.Missing)))
	}
}

// carried counts who is in and all bytes that were ever carried. Those of a target that ends just now may be missing once, and never go down.
func (s *Server) carried() (in map[policies.Kind]int, open int, up, down int64) {
	in = make(map[policies.Kind]int)
	up, down = s.metrics.up.Load(), s.metrics.down.Load()
	for v := range s.sessions.list() {
		v.mu.Lock()
		in[v.entered.identity]++
		open += len(v.open)
		for _, o := range v.open {
			up += o.up.Load()
			down += o.down.Load()
		}
		v.mu.Unlock()
	}
	for _, m := range []struct {
		most interface {
			Load() int64
			CompareAndSwap(old, new int64) bool
		}
		n *int64
	}{{&s.metrics.mostUp, &up}, {&s.metrics.mostDown, &down}} {
		for {
			before := m.most.Load()
			if *m.n = max(*m.n, before); m.most.CompareAndSwap(before, *m.n) {
				break
			}
		}
	}
	return in, open, up, down
}

func (s *Server) auditWorks() bool {
	w, ok := s.audit.(*watchedLog)
	return ok && w.state().Works && w.Healthy() == nil
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 { return float64(t.Unix()) }
