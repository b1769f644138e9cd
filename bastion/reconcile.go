package bastion

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/logins"
	"mayfly/inventory"
)

// Implementation constants of reconciling.
const (
	loginWindow = 2 * time.Minute // from a jump to the login at its end: sshd's grace, a touch included
	maxPassages = 4 << 20
)

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

// Reconciliation is what logins on servers and jumps through bastions say about each other.
type Reconciliation struct {
	Matched    int          `json:"matched"`
	Unrecorded []Unrecorded `json:"unrecorded"` // never null
	Unseen     []Passage    `json:"unseen"`     // jumps that ended in no login, on servers whose logins are known; never null
}

// Reconcile matches each login with one jump, and no jump twice: to the same server, by the same user or key, at most loginWindow
// before it and, for clocks that differ, skew on either side, and by the very connection, address and port, where the log knows it. Where
// more than one would do, it takes the one that nobody later can use.
// sources are the addresses of bastions as servers see them; none: any. If they are given and a jump's own is not among them, addresses are
// translated on the way, and the connection says nothing.
func Reconcile(passages []Passage, reports []logins.Report, sources []netip.Addr, skew time.Duration) Reconciliation {
	r := Reconciliation{Unrecorded: []Unrecorded{}, Unseen: []Passage{}}
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
		i, why := match(passages, byServer[l.Server], used, l, sources, skew)
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

// match finds the jump that a login belongs to: the one by the same connection comes first, then one of both user and key, then the earliest.
func match(passages []Passage, candidates []int, used []bool, l logins.Report, sources []netip.Addr, skew time.Duration) (int, string) {
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

// ReadPassages reads the jumps to SSH ports from an audit log, from since on. It proves nothing about the log: "bastion audit verify"
// does.
func ReadPassages(dir string, since time.Time) ([]Passage, error) {
	since = since.Add(-loginWindow)
	var list []Passage
	type visit struct {
		login    loginRecord
		passages map[int]int // indices of list, by the target's number
	}
	visits := make(map[string]visit) // of live connections
	_, err := audit.Read(dir, 0, func(index uint64, text []byte) error {
		e, err := audit.ParseEntry(text)
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		switch e.Event {
		case eventLogin:
			var r loginRecord
			if err := json.Unmarshal(e.Record, &r); err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
			visits[r.Connection] = visit{r, make(map[int]int)}
		case eventTarget:
			var r openingRecord
			if err := json.Unmarshal(e.Record, &r); err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
			if r.Port != inventory.PortSSH || e.Time.Before(since) {
				return nil
			}
			if len(list) >= maxPassages {
				return fmt.Errorf("more than %d jumps; give a later --since", maxPassages)
			}
			v, live := visits[r.Connection]
			if live {
				v.passages[r.Number] = len(list)
			}
			list = append(list, Passage{Time: e.Time, Connection: r.Connection, User: r.User, Key: v.login.Key, Source: v.login.Source, Server: r.Server})
		case eventConnection:
			var r struct {
				Connection string `json:"connection"`
				Targets    []struct {
					Number int            `json:"number"`
					Via    netip.AddrPort `json:"via"`
				} `json:"targets"`
			}
			if err := json.Unmarshal(e.Record, &r); err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
			for _, t := range r.Targets {
				if i, ok := visits[r.Connection].passages[t.Number]; ok {
					list[i].Via = t.Via
				}
			}
			delete(visits, r.Connection)
		case eventServe:
			clear(visits) // whoever was in when it crashed is in no more
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the audit log %s: %w", dir, err)
	}
	return list, nil
}

// maxLoginsTold bounds how many of the logins found together are told of; each says how many there were.
const maxLoginsTold = 16

// notice is what a bastion is told of an unrecorded login.
func (u Unrecorded) notice(all int) *UnrecordedLogin {
	n := &UnrecordedLogin{User: escape(u.User, maxText), Server: escape(u.Server, maxText), Time: u.Time.UTC(), Key: escape(u.Key, maxText), Why: escape(string(u.Why), maxText), All: all}
	if u.Peer.IsValid() {
		n.Peer = u.Peer.String()
	}
	return n
}
