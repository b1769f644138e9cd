package policies

import (
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
)

const testAuthority = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"

func TestCheckSession(t *testing.T) {
	on := func() Session {
		return Session{Record: true, Recipients: []string{"age1qqqq", "age1pppp"}, Authority: testAuthority}
	}
	grant := Grant{Engineers: []string{"anna"}, Servers: []string{"*"}, Ports: []uint16{22}, Session: true}
	for name, tt := range map[string]struct {
		change func(*Policy)
		want   string
	}{
		"off":                   {func(p *Policy) { p.Session = Session{}; p.Grants = nil }, ""},
		"on":                    {func(*Policy) {}, ""},
		"a grant without it":    {func(p *Policy) { p.Session = Session{} }, "no [session]"},
		"not recorded":          {func(p *Policy) { p.Session.Record = false }, "record = true"},
		"for nobody to read":    {func(p *Policy) { p.Session.Recipients = nil }, "without a recipient"},
		"a recipient twice":     {func(p *Policy) { p.Session.Recipients[1] = p.Session.Recipients[0] }, "twice"},
		"an identity":           {func(p *Policy) { p.Session.Recipients[0] = "AGE-SECRET-KEY-1QQ" }, "no age recipient"},
		"no authority":          {func(p *Policy) { p.Session.Authority = "" }, "no Ed25519 public key"},
		"an RSA authority":      {func(p *Policy) { p.Session.Authority = "ssh-rsa AAAA" }, "no Ed25519 public key"},
		"an authority, comment": {func(p *Policy) { p.Session.Authority += " ca" }, "no Ed25519 public key"},
		"an authority, lines":   {func(p *Policy) { p.Session.Authority += "\n" + testAuthority }, "no Ed25519 public key"},
		"another port":          {func(p *Policy) { p.Grants[0].Ports = []uint16{22, 23} }, "port 22 only"},
	} {
		p := Policy{Session: on(), Grants: []Grant{grant}}
		tt.change(&p)
		err := p.checkSession()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// A grant for sessions opens no jump, and one for jumps no session.
func TestDecideWay(t *testing.T) {
	target := Target{"se-1", 22}
	for _, tt := range []struct {
		grant, session bool
		want           Reason
	}{
		{false, false, Allowed}, {true, true, Allowed}, {true, false, SessionOnly}, {false, true, SessionNotGranted},
	} {
		if v := (Grant{Session: tt.grant}).decideWay(target, tt.session); v.Reason != tt.want || v.Allow != (tt.want == Allowed) {
			t.Errorf("grant %t, session %t: got %+v, want %s", tt.grant, tt.session, v, tt.want)
		}
	}
}

func TestSessionUsers(t *testing.T) {
	now := time.Now()
	f := inventory.Fleet{Servers: []inventory.Server{{Name: "se-1"}, {Name: "se-2"}}}
	p := Policy{Expires: now.Add(time.Hour), Session: Session{Record: true, Recipients: []string{"age1q"}, Authority: testAuthority},
		Engineers: []Engineer{{Name: "anna"}, {Name: "bert"}},
		Grants: []Grant{{Engineers: []string{"anna"}, Servers: []string{"se-1"}, Ports: []uint16{22}, Session: true},
			{Engineers: []string{"bert"}, Servers: []string{"*"}, Ports: []uint16{22}}}}
	if got := p.SessionUsers("se-1", f, now); len(got) != 1 || got[0] != "anna" {
		t.Errorf("se-1: got %q", got)
	}
	off := p
	off.Session = Session{}
	for name, got := range map[string][]string{
		"another server": p.SessionUsers("se-2", f, now), "no server": p.SessionUsers("", f, now), "unknown": p.SessionUsers("se-9", f, now),
		"expired": p.SessionUsers("se-1", f, now.Add(2*time.Hour)), "no session mode": off.SessionUsers("se-1", f, now),
	} {
		if len(got) != 0 {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
