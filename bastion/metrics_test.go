package bastion

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"mayfly/policies"
	"mayfly/policies/plugin"
	"mayfly/policies/witness"
	"mayfly/testenv/softkey"
)

// constants are the texts of the constants of a type in a file.
func constants(t *testing.T, file, typ string) (texts []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		name := ""
		switch x := spec.Type.(type) {
		case *ast.Ident:
			name = x.Name
		case *ast.SelectorExpr:
			name = x.Sel.Name
		}
		if name != typ {
			return true
		}
		switch v := spec.Values[0].(type) {
		case *ast.BasicLit:
			text, err := strconv.Unquote(v.Value)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		case *ast.SelectorExpr: // of another package, checked below
		}
		return true
	})
	if len(texts) == 0 {
		t.Fatalf("%s: no constants of type %s", file, typ)
	}
	return texts
}

// TestMetricReasons holds the labels to the constants: each reason code is one, and nothing else is.
func TestMetricReasons(t *testing.T) {
	want := append(constants(t, "reasons.go", "Reason"), constants(t, "../policies/verdict.go", "Reason")...)
	rejections, err := os.ReadFile("hardkey/rejection.go")
	if err != nil {
		t.Fatal(err)
	}
	attestation := regexp.MustCompile(`"(attestation_[a-z_]+)"`).FindAllStringSubmatch(string(rejections), -1)
	if len(attestation) < 20 {
		t.Fatalf("found only %d reasons of hardkey", len(attestation))
	}
	for _, m := range attestation {
		want = append(want, m[1])
	}
	want = append(want, witness.Missing, witness.Frozen, witness.Forked, plugin.Denied, plugin.Failed, plugin.Late)
	var got []string
	for _, r := range allReasons() {
		got = append(got, string(r))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(slices.Compact(got), want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	for _, r := range want {
		if label(policies.Reason(r)) != r {
			t.Errorf("%s is no label", r)
		}
	}
	if got := label("anna@198.51.100.7"); got != otherReason {
		t.Errorf("an unknown reason is label %q", got)
	}
}

// scrape reads metrics as Prometheus would, and has its own parser judge them.
func scrape(t *testing.T, client *http.Client, url string) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	decoder := expfmt.NewTextParser(model.LegacyValidation)
	families, err := decoder.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value of the series of a family with these label values, in the order of their names.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	f := families["mayfly_bastion_"+name]
	if f == nil {
		t.Fatalf("no %s", name)
	}
	for _, m := range f.Metric {
		var have []string
		for _, l := range m.Label {
			have = append(have, l.GetValue())
		}
		if slices.Equal(have, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("no %s%v", name, labels)
	return 0
}

// freeAddress is a port of loopback that nobody has.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestMetrics lets one in and refuses others, and reads what was counted.
func TestMetrics(t *testing.T) {
	f := newFixture(t)
	address := freeAddress(t)
	f.config.Metrics = Metrics(address)
	f.target("10.77.0.11:22", echo)
	f.start()
	url := "http://" + address + metricsPath
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	before := scrape(t, client, url)
	for _, r := range allReasons() {
		if r != policies.Allowed && value(t, before, "connections_total", outcomeRefused, string(r)) != 0 {
			t.Errorf("%s before anything", r)
		}
	}
	in := f.login("anna", f.anna.Signer(softkey.Always))
	conn, err := in.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Dial("tcp", "nl-1:22"); err == nil {
		t.Fatal("anna reached nl-1")
	}
	if _, err := f.client("anna", f.bert.Signer(softkey.Always)); err == nil {
		t.Fatal("bert's key let anna in")
	}
	f.closing()
	during := scrape(t, client, url)
	for _, want := range []struct {
		name   string
		labels []string
		value  float64
	}{
		{"connections_total", []string{outcomeAccepted, "allowed"}, 1},
		{"connections_total", []string{outcomeRefused, string(policies.KeyUnknown)}, 1},
		{"requests_refused_total", []string{string(policies.TargetNotGranted)}, 1},
		{"sessions", []string{"engineer"}, 1}, {"sessions", []string{"robot"}, 0},
		{"targets_open", nil, 1}, {"targets_total", nil, 1}, {"bytes_total", []string{"up"}, 1000}, {"bytes_total", []string{"down"}, 1000},
		{"handshake_seconds", []string{outcomeAccepted}, 1}, {"handshake_seconds", []string{outcomeRefused}, 1},
		{"policy_version", nil, 1}, {"audit_healthy", nil, 1}, {"witness_confirmed", nil, 1}, {"draining", nil, 0},
		{"host_certificate_expires_timestamp_seconds", nil, float64(f.server.ruling.Load().keys.validBefore().Unix())},
	} {
		if got := value(t, during, want.name, want.labels...); got != want.value {
			t.Errorf("%s%v: got %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	if value(t, during, "audit_append_seconds") == 0 || during["go_goroutines"] == nil {
		t.Error("no append was timed, or no goroutine counted")
	}
	in.Close()
	f.closing()
	after := scrape(t, client, url)
	if n := value(t, after, "sessions_ended_total", endClient); n != 1 {
		t.Errorf("sessions that the client ended: %v", n)
	}
	if n := value(t, after, "bytes_total", "up"); n != 1000 {
		t.Errorf("bytes after the end: %v", n)
	}
	// What people and clients choose is nowhere, and the number of series is what it was.
	for name, family := range after {
		if len(family.Metric) != len(before[name].GetMetric()) && strings.HasPrefix(name, "mayfly_") {
			t.Errorf("%s: %d series, %d before", name, len(family.Metric), len(before[name].GetMetric()))
		}
		for _, m := range family.Metric {
			for _, l := range m.Label {
				for _, secret := range []string{"anna", "bert", "127.0.0", "SHA256", "se-1"} {
					if strings.Contains(l.GetValue(), secret) {
						t.Errorf("%s has label %s", name, l)
					}
				}
			}
		}
	}
}

// TestMetricsAreReadOnly asks for what there is not, says too much, and comes too often.
func TestMetricsAreReadOnly(t *testing.T) {
	f := newFixture(t)
	f.config.Metrics = Metrics(f.path("metrics.sock"))
	f.start()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", f.path("metrics.sock"))
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}
	if got := value(t, scrape(t, client, "http://bastion"+metricsPath), "policy_version"); got != 1 {
		t.Errorf("policy version %v", got)
	}
	for _, tt := range []struct {
		method, path string
		header       string
		want         int
	}{
		{"POST", metricsPath, "", http.StatusMethodNotAllowed}, {"DELETE", metricsPath, "", http.StatusMethodNotAllowed},
		{"GET", "/", "", http.StatusNotFound}, {"GET", "/debug/pprof/", "", http.StatusNotFound},
		{"GET", metricsPath, strings.Repeat("x", 64<<10), http.StatusRequestHeaderFieldsTooLarge},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://bastion"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X", tt.header)
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", tt.method, tt.path, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, resp.Status, tt.want)
		}
	}

	for range maxMetricsReaders {
		conn, err := dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	// All places are taken by who says nothing; the next one is closed at once.
	conn, err := dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(metricsDeadline / 2))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many: %v", err)
	}
}

// TestMetricsConfig refuses what would publish to everybody.
func TestMetricsConfig(t *testing.T) {
	const rest = "listen = \"127.0.0.1:22\"\ntrust = \"t\"\nbundle = \"b\"\nhost_key = \"k\"\nhost_certificate = \"c\"\naudit = \"a\"\n"
	for _, tt := range []struct{ text, want string }{
		{`metrics = "127.0.0.1:9122"`, ""}, {`metrics = "[::1]:9122"`, ""}, {`metrics = "metrics.sock"`, ""},
		{"metrics = \"10.77.0.2:9122\"\nmetrics_allow = [\"10.77.0.9/32\"]", ""},
		{`metrics = "10.77.0.2:9122"`, "not on loopback"}, {`metrics = "0.0.0.0:9122"`, "one address"}, {`metrics = "[::]:9122"`, "one address"},
		{`metrics = ":9122"`, "neither"}, {`metrics = "localhost:9122"`, "neither"}, {`metrics_allow = ["10.0.0.0/8"]`, "without metrics"},
		{"metrics = \"127.0.0.1:1\"\nmetrics_allow = [\"10.77.0.9/8\"]", "prefix"},
		{`log = "json"`, ""}, {`log = "text"`, ""}, {`log = "xml"`, "want text or json"},
	} {
		_, err := parseConfig("bastion.toml", []byte(rest+tt.text))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
		}
	}
	s := &Server{config: Config{}}
	for from, want := range map[string]bool{"127.0.0.1": true, "10.77.0.9": false} {
		if got := s.mayRead(&net.TCPAddr{IP: net.ParseIP(from)}); got != want {
			t.Errorf("%s may read: %v", from, got)
		}
	}
}
