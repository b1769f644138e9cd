package bastion

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"mayfly/bastion/alert"
	"mayfly/policies"
	"mayfly/policies/witness"
)

// otherReason is the label of what is in none of the lists: the number of series never grows.
const otherReason = "other"

// What became of a connection.
const (
	outcomeAccepted = "accepted"
	outcomeRefused  = "refused"
)

// metrics are the numbers that the bastion publishes. No label holds what a client or a person chose: no name, address or key.
// All series exist from the start. A nil one, as in some tests, counts nothing.
type metrics struct {
	registry *prometheus.Registry

	connections *prometheus.CounterVec // by outcome and reason
	ended       *prometheus.CounterVec // by how
	requests    *prometheus.CounterVec // refused channels and requests, by reason
	handshakes  *prometheus.HistogramVec
	targets     prometheus.Counter
	evictions   prometheus.Counter
	policies    *prometheus.CounterVec // taken or refused
	plugins     *prometheus.CounterVec // what plugins did not allow, by reason
	appends     prometheus.Histogram
	appendFails prometheus.Counter
	alerts      *prometheus.CounterVec // by kind and outcome

	up, down         atomic.Int64 // bytes of targets that have ended
	mostUp, mostDown atomic.Int64 // ever told of
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "mayfly", Subsystem: "bastion", Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "mayfly", Subsystem: "bastion", Name: name, Help: help, Buckets: buckets}, labels)
}

// newMetrics makes those of a server, each with all of its labels.
func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		connections: counter("connections_total", "Connections by what became of them and why.", "outcome", "reason"),
		ended:       counter("sessions_ended_total", "Accepted connections that ended, by how.", "ended"),
		requests:    counter("requests_refused_total", "Channels and requests turned down on accepted connections.", "reason"),
		handshakes:  histogram("handshake_seconds", "From the first byte to the end of authentication.", []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "outcome"),
		policies:    counter("policy_reloads_total", "Looks at changed files, by what came of them.", "outcome"),
		plugins:     counter("plugin_refusals_total", "What a site's own decider denied, or did not answer in time.", "reason"),
		alerts:      counter("alerts_total", "Alerts by kind and what became of them.", "kind", "outcome"),
	}
	targets := counter("targets_total", "Targets opened.")
	evictions := counter("evictions_total", "Unauthenticated connections that gave up their place to another.")
	fails := counter("audit_append_failures_total", "Records that the audit log did not take.")
	appends := histogram("audit_append_seconds", "Until a record of the audit log is durable.", []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5})
	m.targets, m.evictions, m.appendFails = targets.WithLabelValues(), evictions.WithLabelValues(), fails.WithLabelValues()
	m.appends = appends.WithLabelValues().(prometheus.Histogram)
	m.connections.WithLabelValues(outcomeAccepted, string(policies.Allowed))
	for _, r := range slices.Concat(allReasons(), []policies.Reason{otherReason}) {
		if r != policies.Allowed {
			m.connections.WithLabelValues(outcomeRefused, string(r))
			m.requests.WithLabelValues(string(r))
		}
	}
	for _, e := range slices.Concat(allEnds, []string{otherReason}) {
		m.ended.WithLabelValues(e)
	}
	for _, o := range []string{outcomeAccepted, outcomeRefused} {
		m.handshakes.WithLabelValues(o)
	}
	for _, o := range []string{"in_force", "kept_old"} {
		m.policies.WithLabelValues(o)
	}
	for _, r := range []policies.Reason{pluginDenied, pluginFailed, pluginLate} {
		m.plugins.WithLabelValues(string(r))
	}
	for _, k := range alert.Kinds {
		for _, o := range alertOutcomes {
			m.alerts.WithLabelValues(string(k), o)
		}
	}
	m.registry.MustRegister(m.connections, m.ended, m.requests, m.handshakes, m.policies, m.plugins, m.alerts, targets, evictions, fails, appends,
		collectors.NewGoCollector(), &gauges{server: s})
	return m
}

func (m *metrics) accepted() {
	if m != nil {
		m.connections.WithLabelValues(outcomeAccepted, string(policies.Allowed)).Inc()
	}
}

func (m *metrics) refused(why policies.Reason) {
	if m != nil {
		m.connections.WithLabelValues(outcomeRefused, label(why)).Inc()
	}
}

func (m *metrics) sessionEnded(how string) {
	if m == nil {
		return
	}
	if !slices.Contains(allEnds, how) {
		how = otherReason
	}
	m.ended.WithLabelValues(how).Inc()
}

func (m *metrics) requestRefused(why policies.Reason) {
	if m != nil {
		m.requests.WithLabelValues(label(why)).Inc()
	}
}

func (m *metrics) handshake(outcome string, took time.Duration) {
	if m != nil {
		m.handshakes.WithLabelValues(outcome).Observe(took.Seconds())
	}
}

func (m *metrics) targetOpened() {
	if m != nil {
		m.targets.Inc()
	}
}

// targetClosed takes over the bytes of a target that has ended.
func (m *metrics) targetClosed(up, down int64) {
	if m != nil {
		m.up.Add(up)
		m.down.Add(down)
	}
}

func (m *metrics) evicted() {
	if m != nil {
		m.evictions.Inc()
	}
}

func (m *metrics) policy(outcome string) {
	if m != nil {
		m.policies.WithLabelValues(outcome).Inc()
	}
}

func (m *metrics) plugin(why policies.Reason) {
	if m != nil {
		m.plugins.WithLabelValues(string(why)).Inc()
	}
}

func (m *metrics) appended(took time.Duration, err error) {
	switch {
	case m == nil:
	case err != nil:
		m.appendFails.Inc()
	default:
		m.appends.Observe(took.Seconds())
	}
}

func (m *metrics) alert(kind alert.Kind, outcome string) {
	if m != nil {
		m.alerts.WithLabelValues(string(kind), outcome).Inc()
	}
}

// known are the reasons that are labels.
var known = func() map[policies.Reason]bool {
	set := make(map[policies.Reason]bool)
	for _, r := range allReasons() {
		set[r] = true
	}
	return set
}()

func label(why policies.Reason) string {
	if known[why] {
		return string(why)
	}
	return otherReason
}

// allReasons are those of package policies and of reasons.go; TestMetricReasons holds the lists together.
func allReasons() []policies.Reason {
	return slices.Concat(policies.Reasons, []policies.Reason{
		startupsFull, sourceStartupsFull, sourcePenalised, droppedByFilter, proxyHeaderMissing, proxyHeaderMalformed,
		evictedReason, handshakeTimeout, noCommonAlgorithm, protocolError, leftEarly, noKey, methodPassword, methodRefused, keyMalformed,
		keyNoTouch, badSignature, tooManyTries, certificateExpired,
		sessionsFull, engineerFull, robotsFull, robotFull, auditUnavailable, drainLimit, stopAtOnce,
		witness.Missing, witness.Frozen, witness.Forked, policyDistrusted, pluginDenied, pluginFailed, pluginLate,
		channelRefused, requestRefused, payloadMalformed, channelsFull, addressRefused, targetUnreachable,
		hostKeyRefused, sessionLoginRefused, commandTooLong, recordingFailed, recordingFull,
	})
}

// allEnds are how an accepted connection ends.
var allEnds = []string{endClient, endTarget, endLost, endIdle, endLimit, endPolicy, endStopping, endRefused, endRecording}
