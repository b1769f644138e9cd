package metrics

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"mayfly/fleetctl/alarm"
	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// whole is a reading in which everything is.
func whole() Reading {
	return Reading{
		At: now, Policy: 3, PolicyExpires: now.Add(time.Hour), Release: 7, Good: 6, Bad: 1, PlanTook: time.Millisecond,
		Plan: plan.Plan{Regions: []plan.RegionTotals{{Name: "se", Capacity: 3000, Serving: 2000, Floor: 1000, Open: true, Due: 2}},
			Steps: []plan.Step{{Server: "se-secret", Reason: plan.Due, Now: true}, {Reason: plan.Young}, {Reason: plan.Young}},
			Train: &plan.TrainState{Release: 7, Number: 2, Stages: 5, Reach: 3, Attempts: 4, Failed: 1, Lower: .01, Upper: .7, Verdict: plan.Holds}},
		Servers: []Server{{"se", inventory.Serving, time.Hour, 23 * time.Hour}, {"se", inventory.Serving, 20 * time.Hour, -time.Minute}, {"se", inventory.New, -1, 0}},
		Run:     true, RunBegan: now, Cancelled: true, Paused: true, Claims: 2, HostsOut: 2, HostsLate: 1, Next: now.Add(time.Hour), Failures: 2, LedgerSize: 9, LedgerKnown: 8,
		Alarms: []alarm.Alarm{{Kind: alarm.Floor, Subject: "se"}},
	}
}

// gathered are the families that m publishes.
func gathered(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a server's name is published:\n%s", w.Body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func value(t *testing.T, f map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range f["mayfly_fleet_"+name].GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetValue())
		}
		if slices.Equal(have, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Errorf("%s%q: not there", name, labels)
	return -1
}

func TestMetrics(t *testing.T) {
	m := New("v1.2.3")
	if f := gathered(t, m); f["mayfly_fleet_servers"] != nil || f["mayfly_fleet_rotations_total"] == nil || f["mayfly_fleet_build_info"] == nil {
		t.Errorf("before the first look: got %q", slices.Sorted(maps.Keys(f)))
	}
	m.Set(whole())
	m.Looked(time.Millisecond, nil)
	m.Looked(0, io.ErrUnexpectedEOF)
	m.Ended(Served, 2, 1)
	m.Scheduled("done")
	m.Scheduled("a new result")
	m.Asked("fleetlock", "held")
	m.Asked("gopher", "held")
	m.Asked("omaha", "se-secret")
	m.Alarmed("region_under_floor")
	m.Alarmed("se-secret")
	f := gathered(t, m)
	for _, tt := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"region_capacity_mbps", []string{"se"}, 3000}, {"region_serving_mbps", []string{"se"}, 2000}, {"region_floor_mbps", []string{"se"}, 1000},
		{"region_oldest_seconds", []string{"se"}, 20 * 3600}, {"region_nearest_deadline_seconds", []string{"se"}, -60},
		{"region_open", []string{"se"}, 1}, {"region_due", []string{"se"}, 2},
		{"servers", []string{"serving"}, 2}, {"servers", []string{"new"}, 1}, {"servers", []string{"quarantined"}, 0},
		{"server_age_seconds", nil, 2}, {"server_deadline_seconds", nil, 2}, {"plan_servers", []string{"young"}, 2}, {"plan_now", nil, 1},
		{"rules_feasible", nil, 1}, {"run_open", nil, 1}, {"run_cancelled", nil, 1}, {"paused", nil, 1}, {"claims", nil, 2},
		{"hosts_out", nil, 2}, {"hosts_overdue", nil, 1}, {"schedule_failures", nil, 2}, {"ledger_size", nil, 9}, {"ledger_cosigned_size", nil, 8},
		{"train_stage", nil, 2}, {"train_failed", nil, 1}, {"train_error_upper", nil, .7}, {"train_verdict", []string{"holds"}, 1}, {"train_verdict", []string{"stops"}, 0},
		{"alarms", []string{"region_under_floor"}, 1}, {"alarms", []string{"quarantined"}, 0}, {"alarms_total", []string{"region_under_floor"}, 1},
		{"rotations_total", []string{"served"}, 1}, {"rotation_attempts_total", nil, 2}, {"rotation_failures_total", nil, 1},
		{"scheduled_runs_total", []string{"done"}, 1}, {"scheduled_runs_total", []string{"other"}, 1},
		{"update_answers_total", []string{"held", "fleetlock"}, 1}, {"store_errors_total", nil, 1}, {"store_seconds", nil, 1},
		{"policy_version", nil, 3}, {"release_in_use", nil, 7}, {"release_good", nil, 6}, {"releases_bad", nil, 1},
	} {
		if got := value(t, f, tt.name, tt.labels...); got != tt.want {
			t.Errorf("%s%q: got %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}
	for _, b := range f["mayfly_fleet_server_deadline_seconds"].GetMetric()[0].GetHistogram().GetBucket() {
		if want := uint64(1); b.GetUpperBound() == 0 && b.GetCumulativeCount() != want {
			t.Errorf("got %d servers past their deadline, want %d", b.GetCumulativeCount(), want)
		}
	}
	r := whole()
	r.Run, r.Next, r.Plan.Train, r.Refused = false, time.Time{}, nil, true
	m.Set(r)
	f = gathered(t, m)
	if value(t, f, "rules_feasible") != 0 || value(t, f, "train_stage") != 0 || f["mayfly_fleet_run_began_timestamp_seconds"] != nil || f["mayfly_fleet_schedule_next_timestamp_seconds"] != nil {
		t.Errorf("without run, schedule and train: got %q", slices.Sorted(maps.Keys(f)))
	}
}

var metricName = regexp.MustCompile("`(mayfly_fleet_[a-z_]+)(?:\\{([a-z,]+)\\})?`")

// TestMetricsDocs: docs/formats/metrics.md lists each metric with its labels, and no other.
func TestMetricsDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		for _, m := range metricName.FindAllStringSubmatch(line, -1) {
			listed[m[1]] = m[2]
		}
	}
	m := New("v1.2.3")
	m.Set(whole())
	for name, f := range gathered(t, m) {
		if !strings.HasPrefix(name, "mayfly_") {
			continue // Go's own
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		want, ok := listed[name]
		if slices.Sort(labels); !ok || strings.Join(labels, ",") != want {
			t.Errorf("docs/formats/metrics.md: %s{%s}: got {%s}, listed %v", name, strings.Join(labels, ","), want, ok)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("docs/formats/metrics.md: %s is not published", name)
	}
	for _, k := range alarm.Kinds {
		if !strings.Contains(string(page), "`"+string(k)+"`") {
			t.Errorf("docs/formats/metrics.md lacks alarm %s", k)
		}
	}
}

func TestMetricsAreReadOnly(t *testing.T) {
	h := New("v").Handler(slog.New(slog.DiscardHandler))
	for _, tt := range []struct {
		method, path string
		want         int
	}{{http.MethodGet, Path, 200}, {http.MethodHead, Path, 200}, {http.MethodPost, Path, 405}, {http.MethodDelete, Path, 405}, {http.MethodGet, "/", 404}, {http.MethodGet, "/metrics/../debug", 404}} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(tt.method, "/metrics", nil)
		r.URL.Path = tt.path
		h.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

// TestMetricsListen: a socket is for its directory's group, one that a dead process left is taken over, a living one's is not.
func TestMetricsListen(t *testing.T) {
	at := filepath.Join(t.TempDir(), "m.sock")
	l, err := Listen(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(at); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	if _, err := Listen(t.Context(), at); err == nil {
		t.Error("somebody listens there, and it was taken over")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Listen(t.Context(), at); err != nil {
		t.Fatalf("what a dead process left: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m, ended := New("v"), make(chan error, 1)
	go func() { ended <- m.Serve(ctx, l, nil, slog.New(slog.DiscardHandler)) }()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", at)
	}}}
	resp, err := client.Get("http://fleet" + Path)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		t.Errorf("got %d", resp.StatusCode)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "x.sock")
	if err := os.WriteFile(file, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), file); err == nil {
		t.Error("a file was taken over")
	}
}

// addressed is a connection that says where it comes from.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }
func (a addressed) Close() error         { return nil }

type queue struct{ conns []net.Conn }

func (q *queue) Accept() (net.Conn, error) {
	if len(q.conns) == 0 {
		return nil, net.ErrClosed
	}
	c := q.conns[0]
	q.conns = q.conns[1:]
	return c, nil
}
func (q *queue) Close() error   { return nil }
func (q *queue) Addr() net.Addr { return nil }

func TestMetricsReaders(t *testing.T) {
	q := &queue{}
	for _, a := range []string{"192.0.2.1:1", "127.0.0.1:1", "10.1.1.1:1", "10.1.1.2:1"} {
		q.conns = append(q.conns, addressed{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a))})
	}
	l := &bounded{Listener: q, places: make(chan struct{}, 2), may: readers([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})}
	var got []string
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		got = append(got, c.RemoteAddr().String())
	}
	if want := []string{"127.0.0.1:1", "10.1.1.1:1"}; !slices.Equal(got, want) {
		t.Errorf("got readers %q, want %q: not the stranger, and no more than there are places", got, want)
	}
}
