// Package reconcile holds the logins that servers saw against the jumps that a bastion recorded: a login without a jump reached a server by
// another way. Match is pure; Read takes the jumps from an audit log as docs/formats/audit.md describes it. It runs where auditors are, never in the
// process that faces engineers.
package reconcile

import (
	"net/netip"
	"slices"
	"time"

	"mayfly/internal/logins"
)

// loginWindow is from a jump to the login at its end: sshd's grace, a touch included.
const loginWindow = 2 * time.Minute

// Passage is a jump to a server's SSH port that the audit log recorded before it was opened.
type Passage struct {
	Time       time.Time `json:"time"`
	Connection string    `json:"connection"`
	User       string    `json:"user"`
	Key        string    `json:"key"` // SHA-256 fingerprint, possession proven
	Source     string    `json:"source"`
	Server     string    `json:"server"`

	// Via is the bastion's own end of the connection to the server. It is known once the engineer's connection has ended, and zero until then.
	Via netip.AddrPort `json:"via,omitzero"`
}

// Why a login counts as one that the bastion did not record.
const (
	whyNoPassage   = "no_passage"   // no jump to that server was recorded at that time
	whyOtherUser   = "other_user"   // one was, by another user with another key
	whyUsedUp      = "used_up"      // one was, and another login at its end
	whyOtherPort   = "other_port"   // one was, and its connection is another than the one by which the login came
	whyOtherSource = "other_source" // it did not come from a bastion's address
	whyUnread      = "unread"       // the line of sshd could not be read
)

// Unrecorded is a login that no jump explains.
type Unrecorded struct {
	logins.Report
	Why string `json:"why"`
}

// Result is what logins on servers and jumps through bastions say about each other.
type Result struct {
	Matched    int          `json:"matched"`
	Unrecorded []Unrecorded `json:"unrecorded"` // never null
	Unseen     []Passage    `json:"unseen"`     // jumps that ended in no login, on servers whose logins are known; never null
}

// Match gives each login one jump, and no jump twice: to the same server, by the same user or key, at most loginWindow
// before it and, for clocks that differ, skew on either side, and by the very connection, address and port, where the log knows it. Where
// more than one would do, it takes the one that nobody later can use.
// sources are the addresses of bastions as servers see them; none: any. If they are given and a jump's own is not among them, addresses are
// translated on the way, and the connection says nothing.
func Match(passages []Passage, reports []logins.Report, sources []netip.Addr, skew time.Duration) Result {
	r := Result{Unrecorded: []Unrecorded{}, Unseen: []Passage{}}
	passages, reports = slices.Clone(passages), slices.Clone(reports)
	slices.SortStableFunc(passages, func(a, b Passage) int { return a.Time.Compare(b.Time) })
	slices.SortStableFunc(reports, func(a, b logins.Report) int { return a.Time.Compare(b.Time) })
	byServer := make(map[string][]int)
	for i, p := range passages {
		byServer[p.Server] = append(byServer[p.Server], i)
	}
	known, used := make(map[string]bool), make([]bool, len(passages))
	for _, l := range reports {
		known[l.Server] = true
		i, why := find(passages, byServer[l.Server], used, l, sources, skew)
		if why != "" {
			r.Unrecorded = append(r.Unrecorded, Unrecorded{Report: l, Why: why})
			continue
		}
		used[i] = true
		r.Matched++
	}
	for i, p := range passages {
		if known[p.Server] && !used[i] {
			r.Unseen = append(r.Unseen, p)
		}
	}
	return r
}

// find looks for the jump that a login belongs to: the one by the same connection comes first, then one of both user and key, then the earliest.
func find(passages []Passage, candidates []int, used []bool, l logins.Report, sources []netip.Addr, skew time.Duration) (int, string) {
	if l.Unread != "" {
		return 0, whyUnread
	}
	if len(sources) > 0 && !slices.Contains(sources, l.Peer.Addr().Unmap()) {
		return 0, whyOtherSource
	}
	earliest, latest := l.Time.Add(-loginWindow-skew), l.Time.Add(skew)
	first, _ := slices.BinarySearchFunc(candidates, earliest, func(i int, t time.Time) int { return passages[i].Time.Compare(t) })
	why, exact, best := whyNoPassage, -1, -1
	for _, i := range candidates[first:] {
		p := passages[i]
		if p.Time.After(latest) {
			break
		}
		user, key := p.User == l.User, p.Key == l.Key && l.Key != ""
		known := p.Via.IsValid() && (len(sources) == 0 || slices.Contains(sources, p.Via.Addr()))
		same := known && p.Via == netip.AddrPortFrom(l.Peer.Addr().Unmap(), l.Peer.Port())
		switch {
		case !user && !key:
			if why == whyNoPassage {
				why = whyOtherUser
			}
		case known && !same:
			if why != whyUsedUp {
				why = whyOtherPort
			}
		case used[i]:
			why = whyUsedUp
		case same:
			return i, ""
		case user && key && exact < 0:
			exact = i
		case best < 0:
			best = i
		}
	}
	if exact < 0 {
		exact = best
	}
	if exact < 0 {
		return 0, why
	}
	return exact, ""
}
