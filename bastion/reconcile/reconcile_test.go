package reconcile

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"mayfly/internal/logins"
)

func TestMatch(t *testing.T) {
	at := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	bastion := netip.MustParseAddrPort("10.77.0.2:40000")
	jump := func(second int, user, key, server string) Passage {
		return Passage{Time: at.Add(time.Duration(second) * time.Second), Connection: "c", User: user, Key: key, Server: server}
	}
	login := func(second int, user, key, server string) logins.Report {
		return logins.Report{Time: at.Add(time.Duration(second) * time.Second), Server: server, User: user, Method: "publickey", Key: key, Peer: bastion}
	}
	stranger := login(1, "anna", "ka", "se-1")
	stranger.Peer = netip.MustParseAddrPort("192.0.2.66:1")
	unread := logins.Report{Time: at, Server: "se-1", Unread: "Accepted what"}
	ended := func(p Passage, via string) Passage {
		p.Via = netip.MustParseAddrPort(via)
		return p
	}
	by := func(l logins.Report, peer string) logins.Report {
		l.Peer = netip.MustParseAddrPort(peer)
		return l
	}
	password := login(2, "anna", "", "se-1")
	password.Method = "password"
	for _, tt := range []struct {
		name     string
		passages []Passage
		logins   []logins.Report
		want     string // why of each unrecorded one, in order
		unseen   int
	}{
		{"nothing", nil, nil, "", 0},
		{"one", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{login(1, "anna", "ka", "se-1")}, "", 0},
		{"another key of the same engineer", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{login(1, "anna", "k2", "se-1")}, "", 0},
		{"another account, the same key", []Passage{jump(0, "anna", "ka", "web-1")}, []logins.Report{login(1, "deploy", "ka", "web-1")}, "", 0},
		{"without a key", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{password}, "", 0},
		{"nobody jumped", nil, []logins.Report{login(1, "anna", "ka", "se-1")}, "no_passage", 0},
		{"to another server", []Passage{jump(0, "anna", "ka", "se-2")}, []logins.Report{login(1, "anna", "ka", "se-1")}, "no_passage", 0},
		{"somebody else jumped", []Passage{jump(0, "bert", "kb", "se-1")}, []logins.Report{login(1, "anna", "ka", "se-1")}, "other_user", 1},
		{"too late", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{login(151, "anna", "ka", "se-1")}, "no_passage", 1},
		{"as late as may be", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{login(150, "anna", "ka", "se-1")}, "", 0},
		{"before the jump, by another clock", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{login(-30, "anna", "ka", "se-1")}, "", 0},
		{"before the jump", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{login(-31, "anna", "ka", "se-1")}, "no_passage", 1},
		{"two logins, one jump", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{login(1, "anna", "ka", "se-1"), login(2, "anna", "ka", "se-1")}, "used_up", 0},
		{"two of each, the exact one first", []Passage{jump(0, "anna", "k2", "se-1"), jump(1, "anna", "ka", "se-1")},
			[]logins.Report{login(2, "anna", "ka", "se-1"), login(3, "anna", "k3", "se-1")}, "", 0},
		{"gave up", []Passage{jump(0, "anna", "ka", "se-1"), jump(1, "anna", "ka", "se-1")}, []logins.Report{login(2, "anna", "ka", "se-1")}, "", 1},
		{"a server whose logins are not known", []Passage{jump(0, "anna", "ka", "se-2")}, nil, "", 0},
		{"not from the bastion", []Passage{jump(0, "anna", "ka", "se-1")}, []logins.Report{stranger}, "other_source", 1},
		{"cannot be read", nil, []logins.Report{unread}, "unread", 0},
		{"by the very connection", []Passage{ended(jump(0, "anna", "ka", "se-1"), "10.77.0.2:40000")}, []logins.Report{login(1, "anna", "ka", "se-1")}, "", 0},
		{"by its connection in IPv6 form", []Passage{ended(jump(0, "anna", "ka", "se-1"), "10.77.0.2:40000")},
			[]logins.Report{by(login(1, "anna", "ka", "se-1"), "[::ffff:10.77.0.2]:40000")}, "", 0},
		{"an abandoned jump covers no other login", []Passage{ended(jump(0, "anna", "ka", "se-1"), "10.77.0.2:40001")},
			[]logins.Report{login(1, "anna", "ka", "se-1")}, "other_port", 1},
		{"nor does one between two others", []Passage{ended(jump(0, "anna", "ka", "se-1"), "10.77.0.2:40001"), ended(jump(1, "anna", "k2", "se-1"), "10.77.0.2:40000")},
			[]logins.Report{login(2, "anna", "ka", "se-1")}, "", 1},
		{"a live one, beside one that has ended", []Passage{jump(0, "anna", "ka", "se-1"), ended(jump(1, "anna", "ka", "se-1"), "10.77.0.2:40000")},
			[]logins.Report{login(2, "anna", "ka", "se-1"), by(login(3, "anna", "ka", "se-1"), "10.77.0.2:40001")}, "", 0},
		{"the connection is somebody else's", []Passage{ended(jump(0, "bert", "kb", "se-1"), "10.77.0.2:40000")}, []logins.Report{login(1, "anna", "ka", "se-1")}, "other_user", 1},
		{"its connection is used up", []Passage{ended(jump(0, "anna", "ka", "se-1"), "10.77.0.2:40000"), ended(jump(1, "anna", "ka", "se-1"), "10.77.0.2:40001")},
			[]logins.Report{login(2, "anna", "ka", "se-1"), login(3, "anna", "ka", "se-1")}, "used_up", 1},
		{"addresses are translated", []Passage{ended(jump(0, "anna", "ka", "se-1"), "192.168.0.2:40001")}, []logins.Report{login(1, "anna", "ka", "se-1")}, "", 0},
		{"in any order", []Passage{jump(200, "anna", "ka", "se-1"), jump(0, "anna", "ka", "se-1")},
			[]logins.Report{login(201, "anna", "ka", "se-1"), login(1, "anna", "ka", "se-1")}, "", 0},
	} {
		r := Match(tt.passages, tt.logins, []netip.Addr{bastion.Addr()}, 30*time.Second)
		var why []string
		for _, u := range r.Unrecorded {
			why = append(why, u.Why)
		}
		if got := strings.Join(why, " "); got != tt.want || len(r.Unseen) != tt.unseen || r.Matched != len(tt.logins)-len(why) {
			t.Errorf("%s: got %q, %d unseen, %d matched; want %q, %d", tt.name, got, len(r.Unseen), r.Matched, tt.want, tt.unseen)
		}
	}
}

// TestReasonsAreDocumented: docs/formats/logins.md names each reason.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/logins.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range []string{whyNoPassage, whyOtherUser, whyOtherPort, whyUsedUp, whyOtherSource, whyUnread} {
		if !strings.Contains(string(page), "| `"+why+"` |") {
			t.Errorf("it lacks %s", why)
		}
	}
}
