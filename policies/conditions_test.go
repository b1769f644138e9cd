package policies

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
)

// conditioned is the good policy with one more condition on anna's first grant, and a break-glass identity.
func conditioned(t *testing.T, change func(*Grant)) Policy {
	t.Helper()
	p := parsed(t)
	change(&p.Grants[0])
	p.BreakGlass = []BreakGlass{{Name: "glass", Keys: []Key{{Public: key(7), Evidence: "test:softkey"}}, Servers: []string{"region:se"}, Ports: []uint16{22}}}
	if err := Check(p, lab(t)); err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	annasLogin = Login{Source: netip.MustParseAddr("198.51.100.17"), User: "anna", Key: key(1)}
	glassLogin = Login{Source: netip.MustParseAddr("198.51.100.40"), User: "glass", Key: key(7)}
	workdays   = []string{"mon", "tue", "wed", "thu", "fri"}
)

// now is a Tuesday, 12:00 UTC.
func TestWindows(t *testing.T) {
	day := func(clock string) time.Time {
		at, err := time.Parse(time.RFC3339, "2030-01-01T"+clock+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	tests := []struct {
		name    string
		windows []Window
		at      time.Time
		want    Reason
	}{
		{"none", nil, now, Allowed},
		{"inside", []Window{{workdays, "08:00", "18:00"}}, now, Allowed},
		{"from is inside", []Window{{workdays, "12:00", "18:00"}}, now, Allowed},
		{"to is outside", []Window{{workdays, "08:00", "12:00"}}, now, OutsideWindow},
		{"a nanosecond before to", []Window{{workdays, "08:00", "12:00"}}, now.Add(-1), Allowed},
		{"a nanosecond before from", []Window{{workdays, "12:00", "18:00"}}, now.Add(-1), OutsideWindow},
		{"another day", []Window{{[]string{"mon", "wed"}, "00:00", "24:00"}}, now, OutsideWindow},
		{"the whole day, its last moment", []Window{{[]string{"tue"}, "00:00", "24:00"}}, day("23:59:59"), Allowed},
		{"the whole day, its first moment", []Window{{[]string{"tue"}, "00:00", "24:00"}}, day("00:00:00"), Allowed},
		{"the second of two", []Window{{workdays, "00:00", "01:00"}, {workdays, "11:00", "13:00"}}, now, Allowed},
		{"in UTC, whatever the zone of now", []Window{{workdays, "08:00", "18:00"}}, time.Date(2030, 1, 1, 22, 0, 0, 0, time.FixedZone("x", 8*3600)), Allowed},
		{"zero window", []Window{{}}, now, OutsideWindow},
		{"window that ends before it begins", []Window{{workdays, "18:00", "08:00"}}, day("20:00:00"), OutsideWindow},
	}
	for _, tt := range tests {
		p := parsed(t)
		p.Grants[0].Windows = tt.windows
		check(t, tt.name, p.DecideTarget(annasLogin, Target{"se-1", 22}, lab(t), Statements{}, tt.at), tt.want)
	}
	// Another grant for the same may hold all the same.
	p := conditioned(t, func(g *Grant) { g.Windows = []Window{{workdays, "00:00", "01:00"}} })
	p.Grants = append(p.Grants, Grant{Engineers: []string{"anna"}, Servers: []string{"*"}, Ports: []uint16{22}})
	v := p.DecideTarget(annasLogin, Target{"se-1", 22}, lab(t), Statements{}, now)
	if check(t, "another grant", v, Allowed); v.Basis.Grant != 3 {
		t.Errorf("by grant %d, want 3", v.Basis.Grant)
	}
}

func TestApprovals(t *testing.T) {
	p, f := conditioned(t, func(g *Grant) { g.Approval = true }), lab(t)
	good := Approval{ID: "a1", Engineer: "anna", Servers: []string{"se-1"}, Ports: []uint16{22}, NotBefore: now, Expires: now.Add(time.Hour), Keys: []string{key(3)}}
	with := func(change func(*Approval)) Statements {
		a := good
		change(&a)
		return Statements{Approvals: []Approval{a}}
	}
	noBert := p
	noBert.Engineers = p.Engineers[:1]
	tests := []struct {
		name   string
		policy Policy
		s      Statements
		at     time.Time
		want   Reason
	}{
		{"none", p, Statements{}, now, ApprovalMissing},
		{"good", p, with(func(a *Approval) {}), now, Allowed},
		{"by region", p, with(func(a *Approval) { a.Servers = []string{"region:se"} }), now, Allowed},
		{"for bert", p, with(func(a *Approval) { a.Engineer = "bert" }), now, ApprovalMissing},
		{"for another server", p, with(func(a *Approval) { a.Servers = []string{"se-2"} }), now, ApprovalMissing},
		{"for another port", p, with(func(a *Approval) { a.Ports = []uint16{443} }), now, ApprovalMissing},
		{"expired", p, with(func(a *Approval) {}), now.Add(time.Hour), ApprovalExpired},
		{"not yet", p, with(func(a *Approval) {}), now.Add(-1), ApprovalEarly},
		{"own", p, with(func(a *Approval) { a.Keys = []string{key(1)} }), now, ApprovalOwn},
		{"own, by her other key", p, with(func(a *Approval) { a.Keys = []string{key(2)} }), now, ApprovalOwn},
		{"own and bert's", p, with(func(a *Approval) { a.Keys = []string{key(2), key(3)} }), now, Allowed},
		{"by a stranger", p, with(func(a *Approval) { a.Keys = []string{key(9)} }), now, ApprovalMissing},
		{"by a software key", p, with(func(a *Approval) { a.Keys = []string{softwareKey(3)} }), now, ApprovalMissing},
		{"by the break-glass identity", p, with(func(a *Approval) { a.Keys = []string{key(7)} }), now, ApprovalMissing},
		{"by nobody", p, with(func(a *Approval) { a.Keys = nil }), now, ApprovalMissing},
		{"by somebody who has left", noBert, with(func(a *Approval) {}), now, ApprovalMissing},
		{"the second of two", p, Statements{Approvals: []Approval{{ID: "a0", Engineer: "anna"}, good}}, now, Allowed},
	}
	for _, tt := range tests {
		v := tt.policy.DecideTarget(annasLogin, Target{"se-1", 22}, f, tt.s, tt.at)
		if check(t, tt.name, v, tt.want); v.Allow && v.Basis.Approval != "a1" {
			t.Errorf("%s: got basis %+v", tt.name, v.Basis)
		}
	}
	revoked := p
	revoked.Hardware.TestRoots = nil
	if v := revoked.DecideApproval(good, now); v.Allow || v.Reason != ApprovalMissing {
		t.Errorf("an approver's key without evidence: got %+v", v)
	}
	check(t, "approval alone", p.DecideApproval(good, now), Allowed)
	check(t, "approval alone, own", p.DecideApproval(with(func(a *Approval) { a.Keys = []string{key(1)} }).Approvals[0], now), ApprovalOwn)
	check(t, "approval alone, of nobody", p.DecideApproval(with(func(a *Approval) { a.Engineer = "cleo" }).Approvals[0], now), UserUnknown)
	check(t, "approval alone, expired", p.DecideApproval(good, good.Expires), ApprovalExpired)
}

func TestDrainedGrant(t *testing.T) {
	p, f := conditioned(t, func(g *Grant) { g.Drained = true }), lab(t)
	d := Drained{Server: "se-1", Epoch: 7, Expires: now.Add(time.Hour)}
	tests := []struct {
		name string
		list []Drained
		at   time.Time
		want Reason
	}{
		{"nothing", nil, now, ServerNotDrained},
		{"drained", []Drained{d}, now, Allowed},
		{"another server", []Drained{{Server: "se-2", Epoch: 7, Expires: d.Expires}}, now, ServerNotDrained},
		{"over", []Drained{d}, d.Expires, ServerNotDrained},
		{"over by a clock that is a minute ahead", []Drained{d}, d.Expires.Add(-DrainedMargin), ServerNotDrained},
		{"a moment before", []Drained{d}, d.Expires.Add(-DrainedMargin - 1), Allowed},
		{"an older life's, longer", []Drained{{Server: "se-1", Epoch: 7, Expires: now.Add(-1)}, {Server: "se-1", Epoch: 6, Expires: d.Expires}}, now, ServerNotDrained},
		{"life 0", []Drained{{Server: "se-1", Expires: d.Expires}}, now, ServerNotDrained},
	}
	for _, tt := range tests {
		v := p.DecideTarget(annasLogin, Target{"se-1", 22}, f, Statements{Drained: tt.list}, tt.at)
		if check(t, tt.name, v, tt.want); v.Allow && v.Basis.Drained != 7 {
			t.Errorf("%s: got basis %+v", tt.name, v.Basis)
		}
	}
	host := f
	host.Servers = append([]inventory.Server(nil), f.Servers...)
	for i := range host.Servers {
		host.Servers[i].Role = inventory.RoleHost
	}
	check(t, "a host has nothing to drain", p.DecideTarget(annasLogin, Target{"se-1", 22}, host, Statements{}, now), Allowed)
}

func TestBreakGlass(t *testing.T) {
	p, f := conditioned(t, func(*Grant) {}), lab(t)
	open := Statements{Openings: []Opening{{ID: "o0", Name: "glass", Expires: now.Add(-time.Hour)}, {ID: "o1", Name: "glass", Expires: now.Add(time.Hour)}}}
	far := glassLogin
	far.Source = netip.MustParseAddr("203.0.113.1")
	wrong := glassLogin
	wrong.Key = key(1)
	soft := glassLogin
	soft.Key = softwareKey(7)
	noEvidence := p
	noEvidence.Hardware.TestRoots = nil
	tests := []struct {
		name   string
		policy Policy
		l      Login
		s      Statements
		at     time.Time
		want   Reason
	}{
		{"sealed", p, glassLogin, Statements{}, now, BreakGlassSealed},
		{"open", p, glassLogin, open, now, Allowed},
		{"sealed again", p, glassLogin, open, now.Add(time.Hour), BreakGlassSealed},
		{"another's opening", p, glassLogin, Statements{Openings: []Opening{{ID: "o1", Name: "other", Expires: now.Add(time.Hour)}}}, now, BreakGlassSealed},
		{"from elsewhere", p, far, open, now, AddressNotListed},
		{"with anna's key", p, wrong, open, now, KeyUnknown},
		{"with a software key", p, soft, open, now, KeyNotHardware},
		{"without evidence", noEvidence, glassLogin, open, now, KeyNoEvidence},
	}
	for _, tt := range tests {
		v := tt.policy.DecideLogin(tt.l, tt.s, tt.at)
		if check(t, tt.name, v, tt.want); v.Allow && v.Basis.Opening != "o1" || tt.want != AddressNotListed && v.Kind != KindBreakGlass {
			t.Errorf("%s: got basis %+v, kind %q", tt.name, v.Basis, v.Kind)
		}
	}
	for _, tt := range []struct {
		name   string
		target Target
		s      Statements
		want   Reason
	}{
		{"its region", Target{"se-2", 22}, open, Allowed},
		{"another region", Target{"nl-1", 22}, open, TargetNotGranted},
		{"another port", Target{"se-2", 443}, open, PortNotGranted},
		{"no server", Target{"xx-1", 22}, open, TargetUnknown},
		{"sealed", Target{"se-2", 22}, Statements{}, BreakGlassSealed},
	} {
		v := p.DecideTarget(glassLogin, tt.target, f, tt.s, now)
		if check(t, "target: "+tt.name, v, tt.want); v.Kind != KindBreakGlass || v.Allow && v.Basis.Opening != "o1" {
			t.Errorf("%s: got %+v", tt.name, v)
		}
	}
	known := p.Granted(Target{"se-1", 22}, f, now)
	if len(known) != 2 || known[1].Name != "glass" || known[1].Keys[0].Public != key(7) {
		t.Errorf("a server has to know %+v", known)
	}
	if k, ok := p.Enrolled("glass", key(7)); !ok || k.Evidence == "" {
		t.Errorf("evidence of the key: got %+v", k)
	}
	if got := p.Opened(open, now); len(got) != 1 || got["glass"].ID != "o1" {
		t.Errorf("open: got %v", got)
	}
}

func TestNextChange(t *testing.T) {
	p := conditioned(t, func(g *Grant) { g.Windows = []Window{{workdays, "08:00", "18:00"}} })
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	s := Statements{
		Approvals: []Approval{{NotBefore: at("2030-01-01T13:00:00Z"), Expires: at("2030-01-01T14:00:00Z")}},
		Openings:  []Opening{{Expires: at("2030-01-01T15:00:00Z")}},
		Drained:   []Drained{{Expires: at("2030-01-01T16:00:00Z")}},
	}
	from := now
	for _, want := range []string{"2030-01-01T13:00:00Z", "2030-01-01T14:00:00Z", "2030-01-01T15:00:00Z", "2030-01-01T15:59:00Z", "2030-01-01T18:00:00Z",
		"2030-01-02T08:00:00Z", "2030-01-02T18:00:00Z", "2030-01-03T08:00:00Z", "2030-01-03T18:00:00Z", "2030-01-04T08:00:00Z", "2030-01-04T18:00:00Z", "2030-01-07T08:00:00Z"} {
		got := p.NextChange(s, from)
		if !got.Equal(at(want)) {
			t.Fatalf("after %s: got %s, want %s", from, got, want)
		}
		from = got
	}
	if got := p.NextChange(Statements{}, p.Expires); !got.Equal(at("2030-02-01T08:00:00Z")) {
		t.Errorf("after the policy's end: got %s", got)
	}
	if got := (Policy{}).NextChange(Statements{}, now); !got.IsZero() {
		t.Errorf("zero policy: got %s", got)
	}
	if got := (Policy{Grants: []Grant{{Windows: []Window{{Days: []string{"never"}, From: "08:00", To: "09:00"}}}}}).NextChange(Statements{}, now); !got.IsZero() {
		t.Errorf("a window that never opens: got %s", got)
	}
}

// TestConditionsAreRead reads what TOML says of them, and leaves them out of the JSON of a policy that has none.
func TestConditionsAreRead(t *testing.T) {
	text := strings.Replace(read(t), "[[grant]]\nengineers = [\"anna\"]\nservers = [\"se-1\", \"se-2\"]\nports = [22]\n", glassTOML+`
[[grant]]
engineers = ["anna"]
servers = ["se-1", "se-2"]
ports = [22]
approval = true
drained = true
[[grant.window]]
days = ["mon", "sun"]
from = "08:00"
to = "24:00"
`, 1)
	p, err := Parse("policy.toml", []byte(text), lab(t))
	if err != nil {
		t.Fatal(err)
	}
	if g := p.Grants[0]; !g.Approval || !g.Drained || len(g.Windows) != 1 || g.Windows[0].To != "24:00" || len(p.BreakGlass) != 1 || p.BreakGlass[0].Name != "glass" {
		t.Errorf("got %+v and %+v", g, p.BreakGlass)
	}
	data, err := json.Marshal(parsed(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"windows", "approval", "drained", "break_glass"} {
		if strings.Contains(string(data), word) {
			t.Errorf("the JSON of a policy without it holds %q: bundles that were signed before would not open", word)
		}
	}
}

var glassTOML = `
[[break_glass]]
name = "glass"
servers = ["*"]
ports = [22]
[[break_glass.key]]
public = "` + key(7) + `"
evidence = "test:softkey"
`

func TestConditionsAreChecked(t *testing.T) {
	grant := "\n[[grant]]\nengineers = [\"anna\"]\nservers = [\"se-1\"]\nports = [22]\n"
	window := func(days, from, to string) string {
		return grant + "[[grant.window]]\ndays = " + days + "\nfrom = \"" + from + "\"\nto = \"" + to + "\"\n"
	}
	tests := []struct{ name, add, want string }{
		{"no days", window(`[]`, "08:00", "18:00"), "no days"},
		{"unknown day", window(`["monday"]`, "08:00", "18:00"), `day "monday" does not exist`},
		{"day twice", window(`["mon", "mon"]`, "08:00", "18:00"), "there twice"},
		{"no from", grant + "[[grant.window]]\ndays = [\"mon\"]\nto = \"10:00\"\n", `from is ""`},
		{"from 24:00", window(`["mon"]`, "24:00", "24:00"), "from is"},
		{"from 8", window(`["mon"]`, "8:00", "18:00"), "from is"},
		{"to 25", window(`["mon"]`, "08:00", "25:00"), "to is"},
		{"over midnight", window(`["mon"]`, "22:00", "06:00"), "not after it begins"},
		{"empty", window(`["mon"]`, "08:00", "08:00"), "not after it begins"},
		{"window twice", window(`["mon"]`, "08:00", "09:00") + strings.TrimPrefix(window(`["mon"]`, "08:00", "09:00"), grant), "there twice"},
		{"too many", grant + strings.Repeat("[[grant.window]]\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"09:00\"\n", 17), "17 windows"},
		{"unknown key", grant + "[[grant.window]]\nzone = \"UTC\"\n", "unknown key"},
		{"approval as text", grant + "approval = \"yes\"\n", ""},
		{"glass with an engineer's name", strings.Replace(glassTOML, `"glass"`, `"anna"`, 1), "the name of somebody else"},
		{"glass twice", glassTOML + strings.Replace(glassTOML, key(7), key(8), 1), "the name of somebody else"},
		{"glass as root", strings.Replace(glassTOML, `"glass"`, `"root"`, 1), "no Unix account name for people"},
		{"glass with too many keys", glassTOML + strings.Repeat("\n[[break_glass.key]]"+strings.Split(glassTOML, "[[break_glass.key]]")[1], 16), "17 keys"},
		{"glass with a software key", strings.Replace(glassTOML, key(7), softwareKey(7), 1), "any software can hold"},
		{"glass with anna's key", strings.Replace(glassTOML, key(7), key(1), 1), `a key of "anna"`},
		{"glass without evidence", strings.Replace(glassTOML, `"test:softkey"`, `""`, 1), "not accepted"},
		{"glass to nowhere", strings.Replace(glassTOML, `["*"]`, `[]`, 1), "no servers"},
		{"glass to no port", strings.Replace(glassTOML, `[22]`, `[]`, 1), "no ports"},
		{"glass to an unknown server", strings.Replace(glassTOML, `"*"`, `"xx-1"`, 1), "does not exist"},
		{"glass to a server twice", strings.Replace(glassTOML, `["*"]`, `["*", "*"]`, 1), "twice"},
		{"too many identities", strings.Repeat(glassTOML, 9), "9 break-glass identities"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(read(t), "\n[rotation]", tt.add+"\n[rotation]", 1)
			_, err := Parse("policy.toml", []byte(text), lab(t))
			if err == nil || !strings.HasPrefix(err.Error(), "policy.toml:") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	p, f := parsed(t), lab(t)
	p.Engineers, p.Grants = p.Engineers[:1], []Grant{{Engineers: []string{"anna"}, Servers: []string{"*"}, Ports: []uint16{22}, Approval: true}}
	if err := Check(p, f); err == nil || !strings.Contains(err.Error(), "there is no other") {
		t.Errorf("approval in a policy of one engineer: got %v", err)
	}
	p.Grants[0].Approval, p.Grants[0].Drained = false, true
	for i := range f.Servers {
		f.Servers[i].Role = inventory.RoleHost
	}
	if err := Check(p, f); err == nil || !strings.Contains(err.Error(), "covers no VPN server") {
		t.Errorf("drained without VPN servers: got %v", err)
	}
}
