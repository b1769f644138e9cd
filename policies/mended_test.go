package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"mayfly/inventory"
)

// TestSessionsAreForEngineers: neither an open break-glass identity nor a robot has a session, wherever they may go, and nobody where
// there is no session mode.
func TestSessionsAreForEngineers(t *testing.T) {
	p, f := conditioned(t, func(*Grant) {}), lab(t)
	f.Servers = slices.Clone(f.Servers)
	for i := range f.Servers {
		if f.Servers[i].Name == "se-2" {
			f.Servers[i].Role = inventory.RoleHost
		}
	}
	p.Session = Session{Record: true, Recipients: []string{"age1q"}, Authority: testAuthority}
	p.Robots = []Robot{{Name: "backup-bot", Public: softwareKey(8), Source: netip.MustParsePrefix("198.51.100.9/32"), Servers: []string{"se-2"}, Ports: []uint16{22}, Commands: []string{"true"}}}
	p.Grants = append(p.Grants, Grant{Engineers: []string{"anna", "glass", "backup-bot"}, Servers: []string{"*"}, Ports: []uint16{22}, Session: true})
	robot := Login{Source: netip.MustParseAddr("198.51.100.9"), User: "backup-bot", Key: softwareKey(8)}
	open := Statements{Openings: []Opening{{ID: "o1", Name: "glass", Expires: now.Add(time.Hour)}}}
	off := p
	off.Session = Session{}
	for _, tt := range []struct {
		name   string
		p      Policy
		l      Login
		server string
		jump   Reason
		want   Reason
		kind   Kind
	}{
		{"engineer", p, annasLogin, "se-1", Allowed, Allowed, KindEngineer},
		{"break-glass", p, glassLogin, "se-1", Allowed, SessionNotGranted, KindBreakGlass},
		{"robot", p, robot, "se-2", Allowed, SessionNotGranted, KindRobot},
		{"no session mode", off, annasLogin, "se-1", Allowed, SessionNotGranted, KindEngineer},
	} {
		check(t, tt.name+", jump", tt.p.DecideTarget(tt.l, Target{tt.server, 22}, f, open, now), tt.jump)
		v := tt.p.DecideSession(tt.l, tt.server, f, open, now)
		if check(t, tt.name, v, tt.want); v.Kind != tt.kind {
			t.Errorf("%s: kind %q, want %q", tt.name, v.Kind, tt.kind)
		}
	}
}

// atBounds is a policy of as many engineers as there may be, with four keys each, and as many approvals as a bastion reads, none of which
// lets anna go.
func atBounds(t *testing.T) (Policy, Statements) {
	t.Helper()
	p := conditioned(t, func(g *Grant) { g.Approval = true })
	for i := len(p.Engineers); i < MaxEngineers; i++ {
		e := Engineer{Name: fmt.Sprintf("e%d", i)}
		for j := range 4 {
			e.Keys = append(e.Keys, Key{Public: fmt.Sprintf("%s%06d%d", key(1), i, j), Evidence: "test:softkey"})
		}
		p.Engineers = append(p.Engineers, e)
	}
	slices.Reverse(p.Engineers) // anna and bert are looked for to the end
	var s Statements
	for i := range 512 {
		s.Approvals = append(s.Approvals, Approval{ID: fmt.Sprint(i), Engineer: "anna", Servers: []string{"*"}, Ports: []uint16{22}, NotBefore: now, Expires: now.Add(time.Hour), Keys: []string{key(1)}})
	}
	return p, s
}

// TestApprovalsAtTheirBounds: what a decision costs rises with the engineers and with the approvals, and not with their product.
func TestApprovalsAtTheirBounds(t *testing.T) {
	p, s := atBounds(t)
	f := lab(t)
	began := time.Now()
	for range 10 {
		check(t, "own approvals", p.DecideTarget(annasLogin, Target{"se-1", 22}, f, s, now), ApprovalOwn)
	}
	if took := time.Since(began) / 10; took > 100*time.Millisecond { // it takes less than one; the square takes seconds
		t.Errorf("a decision takes %v", took)
	}
	began = time.Now()
	for _, a := range s.Approvals {
		check(t, "own approval", p.DecideApproval(a, now), ApprovalOwn)
	}
	if took := time.Since(began); took > 20*time.Second { // a part of a second on a quiet machine
		t.Errorf("deciding each approval takes %v", took)
	}
	last := s.Approvals[len(s.Approvals)-1]
	last.Keys = []string{key(9), key(3)}
	s.Approvals[len(s.Approvals)-1] = last
	check(t, "the last is bert's", p.DecideTarget(annasLogin, Target{"se-1", 22}, f, s, now), Allowed)
}

// TestApprovalWithUserVerification: where the policy asks for it, the signature has to show it.
func TestApprovalWithUserVerification(t *testing.T) {
	p, f := conditioned(t, func(g *Grant) { g.Approval = true }), lab(t)
	p.SSH.VerifyRequired = true
	p.Engineers = slices.Clone(p.Engineers)
	for i, e := range p.Engineers {
		p.Engineers[i].Keys = slices.Clone(e.Keys)
		for j := range e.Keys {
			p.Engineers[i].Keys[j].Evidence = "test:softkey+uv"
		}
	}
	a := Approval{ID: "a1", Engineer: "anna", Servers: []string{"se-1"}, Ports: []uint16{22}, NotBefore: now, Expires: now.Add(time.Hour), Keys: []string{key(1), key(3)}}
	for _, tt := range []struct {
		name     string
		verified []string
		want     Reason
	}{
		{"touched only", nil, ApprovalMissing}, {"another's", []string{key(1)}, ApprovalMissing}, {"verified", []string{key(3)}, Allowed},
	} {
		a.Verified = tt.verified
		check(t, tt.name, p.DecideTarget(annasLogin, Target{"se-1", 22}, f, Statements{Approvals: []Approval{a}}, now), tt.want)
	}
	p.SSH.VerifyRequired, a.Verified = false, nil
	check(t, "not asked for", p.DecideTarget(annasLogin, Target{"se-1", 22}, f, Statements{Approvals: []Approval{a}}, now), Allowed)
}

// TestSystemAccountsAreNobodys: on a host that mayfly did not make, these are users with power or files of their own.
func TestSystemAccountsAreNobodys(t *testing.T) {
	for _, name := range []string{"backup", "mail", "list", "games", "proxy", "lp", "news", "uucp", "man", "irc", "www-data", "daemon", "nobody", "sshd", "root", "systemd-timesync"} {
		if AccountName(name) {
			t.Errorf("somebody may be called %q", name)
		}
		p := parsed(t)
		p.Engineers[0].Name = name
		want := UserReserved
		if name == "root" {
			want = UserRoot
		}
		check(t, name, p.DecideLogin(Login{Source: annasLogin.Source, User: name, Key: key(1)}, Statements{}, now), want)
	}
	for _, name := range []string{"anna", "backup-bot", "mailer", "lisa"} {
		if !AccountName(name) {
			t.Errorf("nobody may be called %q", name)
		}
	}
}

// TestWindowsOfAnotherZone asks when it is one day here and another in UTC.
func TestWindowsOfAnotherZone(t *testing.T) {
	east := time.FixedZone("east", 14*3600)
	monday := time.Date(2030, 1, 8, 1, 0, 0, 0, east) // Monday 11:00 UTC, Tuesday here
	w := Window{[]string{"mon"}, "10:00", "12:00"}
	if !w.holds(monday) || (Window{[]string{"tue"}, "00:00", "24:00"}).holds(monday) {
		t.Error("the day is that of another zone")
	}
	if next, ok := w.next(monday); !ok || !next.Equal(time.Date(2030, 1, 7, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("next: got %s, %t", next, ok)
	}
	for _, zone := range []*time.Location{time.UTC, east, time.FixedZone("west", -12*3600)} {
		at := time.Date(2030, 1, 7, 23, 30, 0, 0, time.UTC).In(zone)
		if next, ok := (Window{[]string{"tue"}, "00:00", "24:00"}).next(at); !ok || !next.Equal(time.Date(2030, 1, 8, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: got %s, %t", zone, next, ok)
		}
	}
	// A window of one day, after its end on that day, opens in a week.
	after := time.Date(2030, 1, 7, 13, 0, 0, 0, time.UTC)
	if next, ok := w.next(after); !ok || !next.Equal(after.AddDate(0, 0, 7).Add(-3*time.Hour)) {
		t.Errorf("in a week: got %s, %t", next, ok)
	}
}

// TestNextChangeIsThePolicysEnd: it ends everything, to the moment.
func TestNextChangeIsThePolicysEnd(t *testing.T) {
	p := Policy{Expires: now.Add(time.Minute)}
	s := Statements{Openings: []Opening{{Expires: now.Add(time.Hour)}}}
	if got := p.NextChange(s, now); !got.Equal(p.Expires) {
		t.Errorf("got %s, want %s", got, p.Expires)
	}
	if got := p.NextChange(s, p.Expires); !got.Equal(now.Add(time.Hour)) {
		t.Errorf("after it: got %s", got)
	}
}
