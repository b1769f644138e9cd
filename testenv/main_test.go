package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/testenv/dnsroot"
	"mayfly/testenv/pivcard"
)

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &talk)
	return code, out.String(), talk.String()
}

func TestHelp(t *testing.T) {
	for _, v := range append([]string{""}, verbNames()...) {
		code, out, talk := call(t, append(strings.Fields(v), "--help")...)
		if code != command.OK || out == "" || talk != "" {
			t.Errorf("%q --help: got exit %d, %d bytes on stdout, stderr %q", v, code, len(out), talk)
		}
	}
	if code, out, _ := call(t, "version"); code != command.OK || !strings.HasPrefix(out, "testenv ") {
		t.Errorf("version: got exit %d, %q", code, out)
	}
}

func verbNames() (names []string) {
	for _, v := range program.Verbs {
		names = append(names, v.Name)
	}
	return names
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{}, {"nothing"}, {"demo", "-o", "xml"}, {"demo", "extra"}, {"up", "extra"}, {"down", "extra"}, {"status", "-o", "xml"},
		{"bench", "tunnel", "--pairs", "1"}, {"mutate", "-o", "xml"}, {"mutate", "no-such-guard"}, {"mutate", "--workers", "-1"},
		{"bench", "rotate", "--pairs", "0"}, {"bench", "rotate", "--only", "nothing"}, {"part", "rotation"}, {"part", "web"}, {"part", "fetch", "--url", "x"},
		{"test", "extra"}, {"test", "./bastion"}, {"test", "-bogus"}, {"test", "-exec=true"}, {"test", "-short", "--", "-exec=true"}, {"test", "-run"},
		{"test", "-run=("}, {"test", "-skip", "["}, {"test", "-count=many"}, {"test", "-count=0"}, {"test", "-timeout", "long"}, {"test", "-short=perhaps"},
		{"part", "forward", "--listen", "0.0.0.0:0", "--to", "1.2.3.4:5", "--namespace", "x", "--from", "1.2.3.4", "--port-file", "x"},
	} {
		if code, _, talk := call(t, args...); code != command.Usage || talk == "" {
			t.Errorf("%q: got exit %d, stderr %q, want exit %d and an error", args, code, talk, command.Usage)
		}
	}
}

func TestGoTestFlags(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", ""},
		{"-short", "-short=true"},
		{"--run TestA/b -v", "-run=TestA/b -v=true"},
		{"-run=^(A|B)$ -skip=C -failfast -count 2 -timeout=90s", "-count=2 -failfast=true -run=^(A|B)$ -skip=C -timeout=1m30s"},
	} {
		got, err := goTestFlags(&command.Call{Args: strings.Fields(test.args), Stdout: &bytes.Buffer{}})
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%q: got %q, %v, want %q", test.args, got, err, test.want)
		}
	}
}

// TestFleetFiles holds the lab's own files to the parsers that the controller uses.
func TestFleetFiles(t *testing.T) {
	now := time.Now()
	zone, err := dnsroot.Sign(zoneRecords(), rootServer, now)
	if err != nil {
		t.Fatal(err)
	}
	text, err := (&environment{}).fleetText(zone.Anchor)
	if err != nil {
		t.Fatal(err)
	}
	f, err := inventory.Parse("fleet.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	if err := inventory.CheckFloors(f); err != nil {
		t.Error(err)
	}
	if len(f.Servers) != len(machines) || f.Capacity("se") != 2*capacity || !f.Test {
		t.Errorf("got %d servers, capacity %d, test %v", len(f.Servers), f.Capacity("se"), f.Test)
	}
	for name, cards := range map[string]bool{"software keys": false, "cards": true} {
		t.Run(name, func(t *testing.T) { policyFile(t, f, cards, now) })
	}
}

func policyFile(t *testing.T, f inventory.Fleet, cards bool, now time.Time) {
	d := &demo{e: &environment{dir: t.TempDir()}}
	if err := os.MkdirAll(d.e.path("keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	var issuers []pivcard.DeviceIssuer
	var err error
	if cards {
		if issuers, err = d.layCards(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"pin", "puk"} {
			if info, err := os.Stat(d.e.path("cards", name)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: got %v, %v, want mode 0600", name, info, err)
			}
		}
	}
	people, err := d.softwareKeys()
	if err != nil {
		t.Fatal(err)
	}
	text, err := (&environment{}).policyText(people, issuers, now)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policies.Parse("policy.toml", text, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := policies.Check(p, f); err != nil {
		t.Error(err)
	}
	if got := len(p.Hardware.TestIssuers); got != len(issuers) {
		t.Errorf("got %d makers of virtual cards, want %d", got, len(issuers))
	}
	// Who holds a card has no software key that could stand in for it.
	for name, want := range map[string]bool{engineer: !cards, approvers[0]: !cards, colleague: true, stranger: true} {
		info, err := os.Stat(d.e.path("keys", name))
		if (err == nil) != want || err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s's key file: got %v, %v, want one, of mode 0600: %v", name, info, err, want)
		}
	}
}

func TestReportJSON(t *testing.T) {
	r := &report{Servers: 3, talk: &bytes.Buffer{}}
	r.check("one", func() (string, error) { return "fine", nil })
	r.check("two", func() (string, error) { return "half", errors.New("broken") })
	r.Rebuilt, r.FailedFetches = 2, 1
	var out bytes.Buffer
	if err := r.printJSON(&out); err != nil {
		t.Fatal(err)
	}
	seconds := regexp.MustCompile(`"seconds":[0-9.e-]+`)
	got := strings.TrimSpace(seconds.ReplaceAllString(out.String(), `"seconds":0`))
	want := `{"checks":[{"name":"one","ok":true,"detail":"fine","seconds":0},{"name":"two","ok":false,"detail":"half broken","seconds":0}],` +
		`"servers":3,"rebuilt":2,"below_floor":0,"failed_fetches":1}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := r.lastLine(), "demo: 2 checks, 1 passed, 2 servers rebuilt, never below floor, 1 failed fetches"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReportIsGoodOnlyWhole(t *testing.T) {
	whole := func() *report {
		r := &report{Servers: 3, Rebuilt: 3, talk: &bytes.Buffer{}}
		for range minChecks {
			r.add("c", "", nil, 0)
		}
		return r
	}
	tests := []struct {
		name   string
		change func(*report)
		want   bool
	}{
		{"whole", func(*report) {}, true},
		{"nothing", func(r *report) { *r = report{talk: r.talk} }, false},
		{"few checks", func(r *report) { r.Checks = r.Checks[:minChecks-1] }, false},
		{"a failed check", func(r *report) { r.add("c", "", errors.New("no"), 0) }, false},
		{"one not rebuilt", func(r *report) { r.Rebuilt-- }, false},
		{"below floor", func(r *report) { r.BelowFloor++ }, false},
		{"a failed fetch", func(r *report) { r.FailedFetches++ }, false},
	}
	for _, test := range tests {
		r := whole()
		test.change(r)
		if got := r.good(); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestSearch(t *testing.T) {
	const chunk = 4 << 20
	data := bytes.Repeat([]byte("x"), 2*chunk+100)
	copy(data[chunk-3:], "border") // across what is read at once
	copy(data[len(data)-4:], "last")
	copy(data, "first")
	found, size, err := search(bytes.NewReader(data), []string{"first", "border", "last", "absent"})
	if err != nil || size != int64(len(data)) {
		t.Fatalf("got size %d, %v", size, err)
	}
	for word, want := range map[string]bool{"first": true, "border": true, "last": true, "absent": false} {
		if found[word] != want {
			t.Errorf("%s: got %v, want %v", word, found[word], want)
		}
	}
}

func TestResults(t *testing.T) {
	stream := strings.Join([]string{
		`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: chatter\n"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA (0.00s)\n"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:2: needs a moon\n"}`,
		`{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}`,
		`{"Action":"skip","Package":"p","Test":"TestB"}`,
		`{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: got 1, want 2\n"}`,
		`{"Action":"output","Package":"p","Test":"TestC","Output":"--- FAIL: TestC (0.00s)\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestC"}`,
		`{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}`,
		`{"Action":"fail","Package":"p"}`,
		`{"Action":"build-output","ImportPath":"q","Output":"q.go:1: does not build\n"}`,
		`{"Action":"fail","Package":"q"}`,
		`not json`,
	}, "\n")
	var out bytes.Buffer
	r := &results{out: &out}
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	r.summary(&out)
	if r.passed != 1 || r.failed != 2 || len(r.skipped) != 1 {
		t.Errorf("got %d passed, %d failed, %d skipped", r.passed, r.failed, len(r.skipped))
	}
	for _, want := range []string{"--- PASS: TestA", "--- FAIL: TestC", "got 1, want 2", "FAIL\tp", "does not build", "not json", "skipped: p TestB: b_test.go:2: needs a moon"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want %q in it", out.String(), want)
		}
	}
	if strings.Contains(out.String(), "chatter") || strings.Contains(out.String(), "=== RUN") {
		t.Errorf("got %q, want no chatter of passed tests", out.String())
	}
}

func TestIsLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"0100007F:1F90": true, "00000000:1F90": false, "0A4D000A:0016": false,
		"00000000000000000000000001000000:0050": true, "00000000000000000000000000000000:0050": false, "junk": false,
	} {
		if got := isLoopback(address); got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
}

func TestNameServer(t *testing.T) {
	for config, want := range map[string]string{
		"# nameserver 1.1.1.1\nsearch x\nnameserver 10.64.1.1\nnameserver 9.9.9.9\n": "10.64.1.1", "": "", "nameserver\n": "",
	} {
		if got := nameServer(config); got != want {
			t.Errorf("%q: got %q, want %q", config, got, want)
		}
	}
}

func TestModuleRoot(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	root, err := moduleRoot(wd)
	if err != nil || root != filepath.Dir(wd) {
		t.Errorf("got %q, %v, want %q", root, err, filepath.Dir(wd))
	}
	if _, err := moduleRoot(t.TempDir()); err == nil {
		t.Error("got nil outside a module, want an error")
	}
}

func TestOneCommandAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), stateName)
	a, b := &environment{dir: dir}, &environment{dir: dir}
	if err := a.take(); err != nil {
		t.Fatal(err)
	}
	if err := b.take(); err == nil || !strings.Contains(err.Error(), "another testenv command") {
		t.Errorf("got %v, want a refusal", err)
	}
	a.release()
	if err := b.take(); err != nil {
		t.Errorf("after release: %v", err)
	}
	b.release()
}

// TestLifeline: the part that runs as root ends when the user's process has gone.
func TestLifeline(t *testing.T) {
	t.Setenv(envCaller, "1")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	ctx, cancel := lifeline(context.Background(), read)
	defer cancel()
	if ctx.Err() != nil {
		t.Error("ended before the line was cut")
	}
	write.Close()
	<-ctx.Done()
}

func TestCheckPlan(t *testing.T) {
	steps := func(now ...string) plan.Plan {
		var p plan.Plan
		for _, m := range machines {
			p.Steps = append(p.Steps, plan.Step{Server: m.Name, Region: m.Region, Capacity: capacity, Due: true, Now: slices.Contains(now, m.Name)})
		}
		return p
	}
	missing := steps("nl-1")
	missing.Steps = missing.Steps[1:]
	for _, tt := range []struct {
		name string
		plan plan.Plan
		good bool
	}{
		{"one of each region", steps("se-1", "nl-1"), true},
		{"the region without a floor", steps("nl-1"), true},
		{"both of the region with a floor", steps("se-1", "se-2"), false},
		{"nothing", steps(), false},
		{"a server left out", missing, false},
		{"empty", plan.Plan{}, false},
	} {
		if _, err := checkPlan(tt.plan); (err == nil) != tt.good {
			t.Errorf("%s: got %v, want good %v", tt.name, err, tt.good)
		}
	}
}
