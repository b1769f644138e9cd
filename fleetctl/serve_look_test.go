package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/fleetlock"
	"mayfly/fleetctl/omaha"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
)

// ill is a store that may stop answering.
type ill struct {
	store.Store
	err error
}

func (s *ill) Servers(ctx context.Context) ([]store.Server, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.Servers(ctx)
}

// looking is a lookout at the fleet of inventory/testdata, with two hosts that ask from loopback.
func looking(t *testing.T) (*lookout, *ill, *bytes.Buffer) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("../inventory/testdata/fleet.toml")
	check(err)
	f, err := inventory.Parse("fleet.toml", text)
	check(err)
	if text, err = os.ReadFile("../policies/testdata/policy.toml"); err != nil {
		t.Fatal(err)
	}
	p, err := policies.Parse("policy.toml", text, f)
	check(err)
	rack := f.Racks[0].Name
	f.Servers = append(f.Servers,
		inventory.Server{Name: "box-1", Role: inventory.RoleHost, Rack: rack, Capacity: 100, Updates: "fleetlock", UpdateID: "id-1", Address: netip.MustParsePrefix("127.0.0.1/32")},
		inventory.Server{Name: "box-2", Role: inventory.RoleHost, Rack: rack, Capacity: 100, Updates: "omaha", UpdateID: "id-2", Address: netip.MustParsePrefix("127.0.0.1/32")})
	f.Updates = []inventory.Update{{App: "os", Track: "stable", Version: "2", URL: "https://mirror.lab.test/2/", Package: "os.gz", Size: 1, SHA1: "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", SHA256: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}
	d := state(t.TempDir())
	s, err := sqlite.Open(t.Context(), filepath.Join(string(d), "store.db"))
	check(err)
	t.Cleanup(func() { check(s.Close()) })
	check(s.Sync(t.Context(), f, time.Now()))
	var log bytes.Buffer
	sick := &ill{Store: s}
	w, err := d.lookout(sick, &policy{d: d, trust: &trust.Trust{Test: true, Version: 1, Fleet: f.Name}, bundle: &bundle.Bundle{Version: 3, Fleet: f.Name, Inventory: f, Policy: p}},
		slog.New(slog.NewTextHandler(&log, nil)))
	check(err)
	w.since, w.ends = time.Now(), map[string]time.Time{}
	return w, sick, &log
}

func scrape(t *testing.T, w *lookout) string {
	t.Helper()
	r := httptest.NewRecorder()
	w.metrics.Handler(w.log).ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return r.Body.String()
}

// TestLookout: what there is to say is said once, in the log and in the numbers, until it is over; a store that is away says so and nothing else.
func TestLookout(t *testing.T) {
	w, sick, log := looking(t)
	now := time.Now()
	w.once(t.Context(), now)
	w.once(t.Context(), now.Add(10*time.Second))
	if n := strings.Count(log.String(), "kind=region_under_floor"); n != 1 || !strings.Contains(log.String(), "subject=se ") {
		t.Errorf("region se serves nothing, and that was said %d times:\n%s", n, log)
	}
	text := scrape(t, w)
	for _, line := range []string{`mayfly_fleet_alarms{kind="region_under_floor"} 1`, `mayfly_fleet_policy_version 3`, `mayfly_fleet_region_floor_mbps{region="se"} 1000`,
		`mayfly_fleet_servers{state="new"} 3`, "mayfly_fleet_rules_feasible 1", "mayfly_fleet_paused 0"} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the numbers lack %q:\n%s", line, text)
		}
	}
	if err := sick.SetPause(t.Context(), store.Pause{On: true, By: "ana", At: now.Add(-2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := sick.MarkRelease(t.Context(), store.Mark{Version: 9, Digest: "d", Mark: store.Bad, Why: "3 of 5 failed", At: now}); err != nil {
		t.Fatal(err)
	}
	if err := sick.EndRotation(t.Context(), store.Outcome{Server: "se-1", Epoch: 1, Release: "9", Attempts: 2, Failed: 2, At: now.Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	w.once(t.Context(), now.Add(20*time.Second))
	w.once(t.Context(), now.Add(30*time.Second))
	for _, say := range []string{"paused by ana", "release 9 is marked bad: 3 of 5 failed"} {
		if n := strings.Count(log.String(), say); n != 1 {
			t.Errorf("%q was said %d times:\n%s", say, n, log)
		}
	}
	text = scrape(t, w)
	for _, line := range []string{"mayfly_fleet_paused 1", "mayfly_fleet_releases_bad 1", `mayfly_fleet_rotations_total{outcome="quarantined"} 1`, "mayfly_fleet_rotation_attempts_total 2"} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the numbers lack %q", line)
		}
	}
	log.Reset()
	sick.err = errors.New("no answer")
	for i := range 12 {
		w.once(t.Context(), now.Add(40*time.Second+time.Duration(i)*10*time.Second))
	}
	if n := strings.Count(log.String(), "kind=store_unreachable"); n != 1 || strings.Count(log.String(), "msg=") != 1 {
		t.Errorf("the store was away for two minutes, and that was said %d times:\n%s", n, log)
	}
	if text = scrape(t, w); !strings.Contains(text, "mayfly_fleet_store_errors_total 12\n") {
		t.Error("the store's errors are not counted")
	}
	log.Reset()
	sick.err = nil
	if err := sick.SetPause(t.Context(), store.Pause{At: now}); err != nil {
		t.Fatal(err)
	}
	w.once(t.Context(), now.Add(3*time.Minute))
	w.once(t.Context(), now.Add(5*time.Minute))
	for _, over := range []string{`msg="alarm is over" kind=store_unreachable`, `msg="alarm is over" kind=paused_long`} {
		if strings.Count(log.String(), over) != 1 {
			t.Errorf("%s: want it once:\n%s", over, log)
		}
	}
}

// TestHostsAreAnswered: both protocols over a socket, with the store's leases and the planner behind them; strangers are closed at the door.
func TestHostsAreAnswered(t *testing.T) {
	w, _, _ := looking(t)
	w.policy.bundle.Policy.Rotation.MaxParallel = 1
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: hostsHandler(w.policy, w.desk, w.metrics, w.log), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(&hostsOnly{Listener: l, policy: w.policy, places: make(chan struct{}, 4)})
	}()
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	}()
	client := http.Client{Timeout: time.Minute}
	post := func(path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, "http://"+l.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("fleet-lock-protocol", "true")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(data)
	}
	const lock = `{"client_params":{"id":"id-1","group":"default"}}`
	ask := func(version string) (int, string) {
		return post(omaha.Path, `<request protocol="3.0"><app appid="os" version="`+version+`" track="stable" machineid="id-2"><updatecheck></updatecheck></app></request>`)
	}
	if code, text := post(fleetlock.PathPreReboot, lock); code != 200 {
		t.Fatalf("got %d %s", code, text)
	}
	if code, text := post(fleetlock.PathPreReboot, lock); code != 200 {
		t.Errorf("again: got %d %s", code, text)
	}
	if code, text := ask("1"); code != 200 || !strings.Contains(text, `status="noupdate"`) {
		t.Errorf("one place, which is taken: got %d %s", code, text)
	}
	if code, _ := post(fleetlock.PathSteadyState, lock); code != 200 {
		t.Errorf("got %d", code)
	}
	if code, text := ask("1"); code != 200 || !strings.Contains(text, `<manifest version="2">`) {
		t.Errorf("a place is free: got %d %s", code, text)
	}
	code, text := post(fleetlock.PathPreReboot, lock)
	var held struct{ Kind, Value string }
	if err := json.Unmarshal([]byte(text), &held); err != nil || code != 409 || held.Kind != "held_parallel" || !strings.Contains(held.Value, "box-2 since") {
		t.Errorf("one place, which is taken: got %d %s", code, text)
	}
	w.once(t.Context(), time.Now())
	if text := scrape(t, w); !strings.Contains(text, "mayfly_fleet_hosts_out 1\n") || !strings.Contains(text, `mayfly_fleet_update_answers_total{answer="held",protocol="fleetlock"} 1`) {
		t.Errorf("hosts are not counted:\n%s", text)
	}
	if code, text := ask("2"); code != 200 || !strings.Contains(text, `status="noupdate"`) {
		t.Errorf("it has the version: got %d %s", code, text)
	}
	if code, text := post(fleetlock.PathPreReboot, lock); code != 200 {
		t.Errorf("the other has it: got %d %s", code, text)
	}
	limited := false
	for range 2 * hostBurst {
		code, _ := post(fleetlock.PathSteadyState, lock)
		limited = limited || code == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("a host may ask as often as it likes")
	}
	client.CloseIdleConnections()
	w.policy.mu.Lock()
	b := *w.policy.bundle
	b.Inventory.Servers = b.Inventory.Servers[:len(b.Inventory.Servers)-2]
	w.policy.bundle = &b
	w.policy.mu.Unlock()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := bufio.NewReader(conn).ReadByte(); err == nil {
		t.Error("a stranger is spoken to")
	}
}
