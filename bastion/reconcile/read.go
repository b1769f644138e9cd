package reconcile

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"mayfly/internal/audit"
	"mayfly/inventory"
)

// maxPassages bounds what is read at once.
const maxPassages = 4 << 20

// Specification constants: the events that are read (docs/formats/audit.md).
const (
	eventServe      = "serve"
	eventLogin      = "login"
	eventTarget     = "target"
	eventConnection = "connection"
)

// What is read of their records.
type (
	login struct {
		Connection string `json:"connection"`
		Source     string `json:"source"`
		Key        string `json:"key"`
	}
	target struct {
		Connection string `json:"connection"`
		Number     int    `json:"number"`
		User       string `json:"user"`
		Server     string `json:"server"`
		Port       uint16 `json:"port"`
	}
	closing struct {
		Connection string `json:"connection"`
		Targets    []struct {
			Number int            `json:"number"`
			Via    netip.AddrPort `json:"via"`
		} `json:"targets"`
	}
)

// Read reads the jumps to SSH ports from an audit log, from since on. It proves nothing about the log: "bastion audit verify"
// does.
func Read(dir string, since time.Time) ([]Passage, error) {
	since = since.Add(-loginWindow)
	var list []Passage
	type visit struct {
		login    login
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
			var r login
			if err := json.Unmarshal(e.Record, &r); err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
			visits[r.Connection] = visit{r, make(map[int]int)}
		case eventTarget:
			var r target
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
			var r closing
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
