// Package metrics publishes what `fleetctl serve` counts, in Prometheus's text form (docs/formats/metrics.md). No label holds what a server, an
// engineer or a user chose: regions, states, reasons and outcomes, so the number of series is bounded by the inventory. There is nothing of users in it.
//
// It listens on loopback or a socket, and elsewhere only for listed networks; it is read-only, bounded, and knows nothing but the last Reading.
//
// Read reading.go, metrics.go, gauges.go, serve.go.
package metrics

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const namespace = "mayfly_fleet"

// Metrics are the numbers of one process.
type Metrics struct {
	registry *prometheus.Registry

	rotations *prometheus.CounterVec // by outcome
	attempts  prometheus.Counter
	failed    prometheus.Counter
	runs      *prometheus.CounterVec // scheduled, by result
	asked     *prometheus.CounterVec // by hosts, by protocol and answer
	alarms    *prometheus.CounterVec // that began, by kind
	looks     prometheus.Histogram
	lookFails prometheus.Counter

	mu      sync.Mutex // guards the rest
	reading *Reading
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// New makes them; version is the program's.
func New(version string) *Metrics {
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		rotations: counter("rotations_total", "Rotations of servers that ended, by how, since this process began.", "outcome"),
		runs:      counter("scheduled_runs_total", "Scheduled rotations that this process tried, by what came of them.", "result"),
		asked:     counter("update_answers_total", "What hosts that ask whether they may restart were told.", "protocol", "answer"),
		alarms:    counter("alarms_total", "Alarms that began, by kind.", "kind"),
		attempts:  prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "rotation_attempts_total", Help: "Lives that ended rotations took."}),
		failed:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "rotation_failures_total", Help: "Of those, lives that failed."}),
		lookFails: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "store_errors_total", Help: "Looks at the store that failed."}),
		looks: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "store_seconds", Help: "Until the store has answered a look.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
	}
	for _, o := range outcomes {
		m.rotations.WithLabelValues(string(o))
	}
	for _, r := range scheduled {
		m.runs.WithLabelValues(r)
	}
	for _, p := range protocols {
		for _, a := range Answers {
			m.asked.WithLabelValues(p, a)
		}
	}
	for _, k := range kinds {
		m.alarms.WithLabelValues(k)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "1, with the program's version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(m.rotations, m.attempts, m.failed, m.runs, m.asked, m.alarms, m.looks, m.lookFails, build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &gauges{m})
	return m
}

// Answers are what hosts are told, as labels: granted, held with why, refused.
var Answers = []string{"granted", "released", "current", "held", "refused", "limited", "failed"}

// Set takes the newest reading.
func (m *Metrics) Set(r Reading) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reading = &r
}

// Looked counts a look at the store.
func (m *Metrics) Looked(took time.Duration, err error) {
	if err != nil {
		m.lookFails.Inc()
		return
	}
	m.looks.Observe(took.Seconds())
}

// Ended counts a rotation that ended.
func (m *Metrics) Ended(o Outcome, attempts, failed int) {
	m.rotations.WithLabelValues(string(o)).Inc()
	m.attempts.Add(float64(max(attempts, 0)))
	m.failed.Add(float64(max(failed, 0)))
}

// Scheduled counts a scheduled rotation.
func (m *Metrics) Scheduled(result string) {
	if !slices.Contains(scheduled, result) {
		result = other
	}
	m.runs.WithLabelValues(result).Inc()
}

// Asked counts an answer to a host.
func (m *Metrics) Asked(protocol, answer string) {
	if slices.Contains(protocols, protocol) && slices.Contains(Answers, answer) {
		m.asked.WithLabelValues(protocol, answer).Inc()
	}
}

// Alarmed counts an alarm that began.
func (m *Metrics) Alarmed(kind string) {
	if slices.Contains(kinds, kind) {
		m.alarms.WithLabelValues(kind).Inc()
	}
}
