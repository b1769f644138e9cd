package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Content is all that a store holds at one moment, but for claims, which are of the controllers that run now. Lists are in the order in
// which they are written down: two stores with the same content have the same export.
type Content struct {
	Policy     uint64
	Pause      Pause
	Use        *Use
	Marks      []Mark
	Servers    []Record
	Events     []Event
	Tickets    []Ticket
	Revoked    []Ended
	Failures   []Failure
	Drains     []Of[DrainOrder]
	Restarts   []Of[Restart]
	Extensions []Of[Extension]
	Runs       []Run
	Journal    []Entry // by server, oldest first, without IDs
	Outcomes   []Outcome
	Logins     []Login // in the order in which the controller heard of them
}

// Record is a server as it is kept.
type Record struct {
	Server
	// Floor is the least number that the next life may have; 0 for the next one. A restored store has it: lives may have begun since it
	// was saved.
	Floor uint64 `json:"floor,omitempty"`
	// Its newest health report.
	Report   []byte    `json:"health,omitempty"`
	ReportAt time.Time `json:"health_at,omitzero"`
}

// Ticket is what is kept of a ticket.
type Ticket struct {
	Hash     []byte    `json:"hash"` // SHA-256 of its bytes
	Server   string    `json:"server"`
	Epoch    uint64    `json:"epoch"`
	NotAfter time.Time `json:"not_after"`
	Used     time.Time `json:"used,omitzero"`
	Revoked  bool      `json:"revoked,omitempty"`
}

// Ended is a life that was revoked.
type Ended struct {
	Server string    `json:"server"`
	Epoch  uint64    `json:"epoch"`
	At     time.Time `json:"at"`
}

// Failure is why a life did not come up.
type Failure struct {
	Server string    `json:"server"`
	Epoch  uint64    `json:"epoch"`
	Reason string    `json:"reason"`
	Detail string    `json:"detail,omitempty"`
	At     time.Time `json:"at"`
}

// Of is something that a server has one of.
type Of[T any] struct {
	Server string `json:"server"`
	Value  T      `json:"value"`
}

// RevokeTickets revokes those that were not used.
func (c *Content) RevokeTickets() {
	for i := range c.Tickets {
		if c.Tickets[i].Used.IsZero() {
			c.Tickets[i].Revoked = true
		}
	}
}

// Check refuses a content that no store can have: something of a server that is not in it, a state that is none, two of what there is one of.
func (c *Content) Check() error {
	known := make(map[string]uint64, len(c.Servers))
	for _, s := range c.Servers {
		if _, twice := known[s.Name]; twice || s.Name == "" {
			return fmt.Errorf("server %q: it is there twice, or has no name", s.Name)
		}
		if !s.State.Known() {
			return fmt.Errorf("server %q: there is no state %q", s.Name, s.State)
		}
		if len(s.Report) > 0 && !json.Valid(s.Report) {
			return fmt.Errorf("server %q: its health is not JSON", s.Name)
		}
		known[s.Name] = s.Epoch
	}
	var all []error
	seen := map[string]bool{}
	of := func(what, server string, key any) {
		if _, ok := known[server]; !ok {
			all = append(all, fmt.Errorf("%s of server %q, which is not in it", what, server))
		}
		if key == nil {
			return
		}
		k := fmt.Sprint(what, "\x00", server, "\x00", key)
		if seen[k] {
			all = append(all, fmt.Errorf("%s of server %q: it is there twice", what, server))
		}
		seen[k] = true
	}
	last := int64(0)
	for _, e := range c.Events {
		of("event", e.Server, nil)
		if e.ID <= last {
			all = append(all, fmt.Errorf("event %d comes after event %d", e.ID, last))
		}
		last = e.ID
	}
	hashes := map[string]bool{}
	for _, t := range c.Tickets {
		of("ticket", t.Server, nil)
		if len(t.Hash) != 32 || hashes[string(t.Hash)] {
			all = append(all, fmt.Errorf("ticket of server %q: its hash has %d bytes, or is there twice", t.Server, len(t.Hash)))
		}
		hashes[string(t.Hash)] = true
	}
	for _, x := range c.Revoked {
		of("revoked life", x.Server, x.Epoch)
	}
	for _, x := range c.Failures {
		of("failure", x.Server, x.Epoch)
	}
	for _, x := range c.Drains {
		of("drain order", x.Server, "")
	}
	for _, x := range c.Restarts {
		of("restart", x.Server, "")
	}
	for _, x := range c.Extensions {
		of("extension", x.Server, "")
	}
	for _, x := range c.Outcomes {
		of("outcome", x.Server, x.Epoch)
	}
	for _, x := range c.Logins {
		of("login", x.Server, fmt.Sprint(x.Epoch, "/", x.Number))
	}
	open, runs := 0, map[int64]bool{}
	last = 0
	for _, r := range c.Runs {
		if r.ID <= last {
			all = append(all, fmt.Errorf("run %d comes after run %d", r.ID, last))
		}
		runs[r.ID] = true
		if last = r.ID; r.Ended.IsZero() {
			open++
		}
	}
	if open > 1 {
		all = append(all, fmt.Errorf("%d runs are open", open))
	}
	for _, x := range c.Journal {
		of("journal", x.Server, nil)
		if !runs[x.Run] {
			all = append(all, fmt.Errorf("journal of server %q: run %d is not in it", x.Server, x.Run))
		}
	}
	for _, m := range c.Marks {
		if m.Mark != Good && m.Mark != Bad {
			all = append(all, fmt.Errorf("release %d: there is no mark %q", m.Version, m.Mark))
		}
	}
	if len(all) > maxFaults {
		all = append(all[:maxFaults], fmt.Errorf("and %d more", len(all)-maxFaults))
	}
	return errors.Join(all...)
}

const maxFaults = 10 // that Check names
