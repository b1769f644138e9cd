package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// settings reads a unit file: each setting's values in order, by "Section.Name".
func settings(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	all, section := map[string][]string{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		case ok:
			all[section+"."+key] = append(all[section+"."+key], value)
		default:
			t.Errorf("%s: %q is no setting", name, line)
		}
	}
	return all
}

// tight is what keeps a service that was taken over to itself. PrivateUsers would hide from it who is who: whose files these are, and who asks on a socket.
var tight = map[string]string{
	"NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "PrivateUsers": "no", "PrivateDevices": "yes",
	"PrivateTmp": "yes", "PrivateIPC": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "ProtectClock": "yes",
	"ProtectHostname": "yes", "ProtectControlGroups": "yes", "ProtectKernelLogs": "yes", "ProtectKernelModules": "yes",
	"ProtectKernelTunables": "yes", "ProtectProc": "invisible", "ProcSubset": "pid", "KeyringMode": "private", "LockPersonality": "yes",
	"MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes",
	"SystemCallArchitectures": "native", "LimitCORE": "0", "UMask": "0077",
}

// services are the units that run programs, as whom and in which group.
var services = map[string][2]string{"mayfly-signer.service": {"mayfly-signer", "mayfly"}, "mayfly-serve.service": {"mayfly-serve", "mayfly"},
	"mayfly-checkin.service": {"mayfly-checkin", "mayfly-checkin"}, "mayfly-rotate.service": {"mayfly-serve", "mayfly"}}

func TestUnitsAreTight(t *testing.T) {
	users := string(Files(StateDir, Program)[0].Data)
	for unit, who := range services {
		got := settings(t, unit)
		if u, g := got["Service.User"], got["Service.Group"]; !slices.Equal(u, []string{who[0]}) || !slices.Equal(g, []string{who[1]}) {
			t.Errorf("%s: runs as %q of %q, want %q", unit, u, g, who)
		}
		if !strings.Contains(users, "\nu "+who[0]+" ") {
			t.Errorf("%s: nobody makes the user %s", unit, who[0])
		}
		if v := got["Unit.StartLimitIntervalSec"]; !slices.Equal(v, []string{"0"}) {
			t.Errorf("%s: gives up after a while: %q", unit, v)
		}
		for key, want := range tight {
			if v := got["Service."+key]; !slices.Equal(v, []string{want}) {
				t.Errorf("%s: %s: got %q, want %q", unit, key, v, want)
			}
		}
		if calls := got["Service.SystemCallFilter"]; len(calls) < 2 || !strings.HasPrefix(calls[1], "~") || !strings.Contains(calls[1], "@privileged") {
			t.Errorf("%s: calls %q", unit, calls)
		}
	}
	if s := settings(t, "mayfly-signer.service"); !slices.Equal(s["Service.PrivateNetwork"], []string{"yes"}) || !slices.Equal(s["Service.RestrictAddressFamilies"], []string{"AF_UNIX"}) {
		t.Errorf("the signer reaches a network: %q", s)
	}
	if s := settings(t, "mayfly-checkin.service"); len(s["Service.ReadWritePaths"]) > 0 || !slices.Equal(s["Service.InaccessiblePaths"], []string{"-/var/lib/mayfly/signer"}) {
		t.Errorf("check-in writes, or sees keys: %q", s)
	}
	if s := settings(t, "mayfly-rotate.timer"); !slices.Equal(s["Timer.Persistent"], []string{"yes"}) {
		t.Errorf("what was missed is not made up: %q", s)
	}
}

// tool runs a program that testenv test installs.
func tool(t *testing.T, name, pack string, env []string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s (%s), which testenv test installs", name, pack)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s %q: %v: %s", name, args, err, out)
	}
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestUnitsVerify asks systemd's own tool, whose exposure level goes from 0 to 10, in tenths on its command line.
func TestUnitsVerify(t *testing.T) {
	dir := t.TempDir()
	units := append(slices.Sorted(maps.Keys(services)), "mayfly-rotate.timer")
	verify := []string{"verify"}
	for _, f := range Files(StateDir, "/bin/true") { // the program is not installed where the test runs
		if slices.Contains(units, f.Name) {
			verify = append(verify, write(t, filepath.Join(dir, f.Name), f.Data))
		}
	}
	env := []string{"SYSTEMD_UNIT_PATH=" + dir + ":"}
	tool(t, "systemd-analyze", "systemd", env, verify...)
	for unit := range services {
		tool(t, "systemd-analyze", "systemd", env, "security", "--offline=true", "--threshold=25", filepath.Join(dir, unit))
	}
	tool(t, "systemd-analyze", "systemd", nil, "calendar", settings(t, "mayfly-rotate.timer")["Timer.OnCalendar"][0])
}

// TestRules has promtool read the alert rules, and try them on numbers.
func TestRules(t *testing.T) {
	dir := t.TempDir()
	rules, err := files.ReadFile("mayfly.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile("testdata/mayfly.rules.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "promtool", "prometheus", nil, "check", "rules", "--lint-fatal", write(t, filepath.Join(dir, "mayfly.rules.yml"), rules))
	tool(t, "promtool", "prometheus", nil, "test", "rules", write(t, filepath.Join(dir, "mayfly.rules.test.yml"), cases))
}

// dashboard is what is looked at of a Grafana dashboard.
type dashboard struct {
	Title  string
	UID    string
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr string }
	}
}

// TestDashboard: every expression is PromQL, every panel has a place of its own.
func TestDashboard(t *testing.T) {
	data, err := files.ReadFile("mayfly-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || len(d.Panels) < 10 {
		t.Errorf("got %q with %d panels", d.Title, len(d.Panels))
	}
	var rules bytes.Buffer
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q, or outside", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for i, target := range p.Targets {
			fmt.Fprintf(&rules, "      - record: p%d_%d\n        expr: %q\n", p.ID, i, strings.ReplaceAll(target.Expr, "$job", "lab"))
		}
	}
	tool(t, "promtool", "prometheus", nil, "check", "rules", write(t, filepath.Join(t.TempDir(), "dashboard.yml"), rules.Bytes()))
}

var (
	used   = regexp.MustCompile(`mayfly_[a-z_]+`)
	listed = regexp.MustCompile("`(mayfly_fleet_[a-z_]+)")
)

// TestNames: rules and dashboard name only numbers that docs/formats/metrics.md lists, which a test of metrics holds to what is published.
func TestNames(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range listed.FindAllStringSubmatch(string(page), -1) {
		known[m[1]], known[m[1]+"_bucket"] = true, true
	}
	for _, name := range []string{"mayfly.rules.yml", "mayfly-dashboard.json"} {
		data, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := used.FindAllString(string(data), -1)
		if len(found) < 10 {
			t.Errorf("%s: names only %q", name, found)
		}
		for _, n := range found {
			if !known[n] {
				t.Errorf("%s: %s is not published", name, n)
			}
		}
	}
}

// TestFiles: another state directory and program are everywhere.
func TestFiles(t *testing.T) {
	all := Files("/srv/fleet", "/opt/fleetctl")
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(entries) {
		t.Errorf("got %d files, %d are there", len(all), len(entries))
	}
	for _, f := range all {
		if bytes.Contains(f.Data, []byte(StateDir)) || bytes.Contains(f.Data, []byte(Program)) {
			t.Errorf("%s: says %s or %s", f.Name, StateDir, Program)
		}
		if f.What == "" || strings.HasSuffix(f.Name, ".service") && !bytes.Contains(f.Data, []byte("ExecStart=/opt/fleetctl ")) {
			t.Errorf("%s: got %s", f.Name, f.Data)
		}
	}
}
