package web

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

func TestBuild(t *testing.T) {
	v := build(t, fleet(3000))
	if v.Totals.Servers != 3000 || len(v.Servers) != 3000 {
		t.Errorf("got %d servers and %d rows, want 3000", v.Totals.Servers, len(v.Servers))
	}
	sum := 0
	for _, k := range Kinds {
		for _, r := range v.Regions {
			sum += r.Kinds[k]
		}
	}
	if sum != 3000 {
		t.Errorf("the regions' servers are %d, want all 3000", sum)
	}
	for _, k := range Kinds {
		if k != Held && len(v.Select(Query{Kind: k, Page: 1, Size: 10}).Servers) == 0 {
			t.Errorf("no server is %s: the test would show less than it says", k)
		}
	}
	if v.Mood != Danger || v.Alerts[0].Code != "under_floor" || v.Alerts[0].Region != "nrt" {
		t.Errorf("got mood %s and %v first, want nrt under its floor", v.Mood, v.Alerts[0])
	}
	if len(v.Plan.Waiting) != maxSteps || v.Plan.Waits <= maxSteps || v.Plan.Begins != len(v.Plan.Now) || v.Plan.Begins == 0 || v.Plan.Flying != v.Totals.Moving {
		t.Errorf("got %d of %d waiting, %d now, %d in flight of %d", len(v.Plan.Waiting), v.Plan.Waits, v.Plan.Begins, v.Plan.Flying, v.Totals.Moving)
	}
	if len(v.Controllers) != 2 || v.Controllers[0].Claims+v.Controllers[1].Claims != v.Totals.Moving {
		t.Errorf("got %v, want two controllers with all claims", v.Controllers)
	}
	if len(v.Releases) != 3 || !v.Releases[0].InUse || v.Releases[1].Mark != "good" || v.Releases[2].Mark != "bad" || v.Releases[0].Servers == 0 || v.Releases[1].Servers == 0 {
		t.Errorf("got %+v, want 118 in use, 117 good, 116 bad", v.Releases)
	}
	in := 0
	for _, a := range v.Ages {
		in += a.Servers
	}
	if in == 0 || in > v.Totals.Serving+v.Totals.Silent {
		t.Errorf("%d servers have an age, of %d", in, v.Totals.Serving+v.Totals.Silent)
	}
}

func TestBuildCalm(t *testing.T) {
	v := build(t, small())
	if v.Mood != Calm || len(v.Alerts) != 0 || v.Train != nil || v.Run.ID != 0 {
		t.Errorf("got %s with %v, want a fleet that needs nobody", v.Mood, v.Alerts)
	}
}

// The zero Input shows an empty fleet, and no list of the JSON is null.
func TestBuildEmpty(t *testing.T) {
	data, err := json.Marshal(Build(Input{}, noon))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"regions", "floors", "releases", "quarantine", "controllers", "alerts", "ages", "servers", "now", "waiting", "flight", "reasons", "refusals", "witnesses"} {
		if !strings.Contains(string(data), `"`+list+`":[`) {
			t.Errorf("%s is not a list in %s", list, data)
		}
	}
}

func TestAlerts(t *testing.T) {
	for _, tt := range []struct {
		code   string
		mood   Mood
		change func(*Input)
	}{
		{"under_floor", Danger, func(in *Input) { in.Snapshot.Regions[0].Floor = 1 << 30 }},
		{"under_floor", Danger, func(in *Input) { in.Rules.Floors = []plan.RoleFloor{{Region: "arn", Role: "vpn", Mbps: 1 << 30}} }},
		{"floor_impossible", Danger, func(in *Input) {
			in.Refusals = plan.Refusals{{Code: plan.FloorImpossible, Region: "arn", Detail: "one could never leave"}}
		}},
		{"deadline_passed", Danger, func(in *Input) { in.Snapshot.Servers[3].Deadline = noon }},
		{"deadline_in_danger", Danger, func(in *Input) { in.Alerts = []Alert{{Danger, "deadline_in_danger", "arn-0001", "arn", "soon"}} }},
		{"quarantined", Attention, func(in *Input) { in.Snapshot.Servers[3].State = inventory.Quarantined }},
		{"silent", Attention, func(in *Input) { in.Health[in.Snapshot.Servers[3].Name] = noon.Add(-time.Minute) }},
		{"paused", Attention, func(in *Input) { in.Pause = store.Pause{On: true, By: "anna"} }},
		{"ledger", Attention, func(in *Input) { in.Ledger.Problem = "no checkpoint" }},
	} {
		in := small()
		tt.change(&in)
		v := build(t, in)
		found := false
		for _, a := range v.Alerts {
			found = found || a.Code == tt.code && a.Mood == tt.mood
		}
		if !found || v.Mood != tt.mood {
			t.Errorf("%s: got mood %s and %v", tt.code, v.Mood, v.Alerts)
		}
	}
}

func TestClean(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain", "plain"},
		{"", ""},
		{"a\x1b[2Jb", `a\u001b[2Jb`},
		{"\u202egnp", `\u202egnp`},
		{"\xffx", `\xffx`},
		{"größe 日本", "größe 日本"},
		{strings.Repeat("x", 30), strings.Repeat("x", 20) + "…"},
		{"e\u0301", `e\u0301`},
	} {
		if got := clean(tt.in, 20); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
	lines := console(strings.Repeat("line\r\n", 100))
	if len(lines) != maxConsoleLines || lines[0] != "line" {
		t.Errorf("got %d lines, the first %q, want the last %d", len(lines), lines[0], maxConsoleLines)
	}
}

func TestCauseOf(t *testing.T) {
	for _, tt := range []struct {
		text, cause string
		lines       int
	}{
		{"join: lost", "join: lost", 0}, {"boot: fetch_failed (console: one | two | three)", "boot: fetch_failed", 3}, {"odd (console: cut", "odd (console: cut", 0}, {"", "", 0},
	} {
		if cause, lines := causeOf(tt.text); cause != tt.cause || len(lines) != tt.lines {
			t.Errorf("%q: got %q and %q", tt.text, cause, lines)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add(hostile)
	f.Add("\xff\u202e\u2066\ufeff")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range clean(text, 1000) {
			if r < ' ' || r == 0x7f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff {
				t.Errorf("%q: got %U, which is not to be shown", text, r)
			}
		}
	})
}

func TestWords(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{span(0), "0 s"}, {span(59), "59 s"}, {span(61), "1 min 01 s"}, {span(3661), "1 h 01 min"}, {span(90000), "1 d 01 h"}, {span(-61), "−1 min 01 s"},
		{group(1), "1"}, {group(1234), "1\u202f234"}, {group(-1234567), "-1\u202f234\u202f567"}, {group(-123), "-123"},
		{mbps(1000), "1\u202f000 Mbit/s"}, {mbps(12340), "12.3 Gbit/s"}, {mbps(1_230_000), "1.23 Tbit/s"},
		{percent(0.0161), "1.6 %"}, {share(1, 0), "0"}, {share(3, 2), "100"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
