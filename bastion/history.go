package bastion

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/durable"
	"mayfly/policies"
)

// Specification constants of the file in which the networks that engineers have used are kept, beside the audit log.
const (
	historyName = "known_networks.json"
	kindHistory = "mayfly-known-networks/1"
)

// Bounds of that file. Who used a network longest ago is forgotten first.
const (
	maxHistory         = 4 << 20
	maxHistoryUsers    = 1024
	maxHistoryNetworks = 32 // of one engineer
)

// loginSeen is an engineer who was let in.
type loginSeen struct {
	visit    *visit
	user, id string
	source   netip.Addr
	at       time.Time
}

// history is which networks engineers have used. It belongs to the goroutine that follows logins.
type history struct {
	path  string
	table networkTable
	users map[string]map[string]time.Time // by engineer and network: when last
}

type historyFile struct {
	Kind  string                          `json:"kind"`
	Users map[string]map[string]time.Time `json:"users"`
}

// openHistory reads the table and the file; where that is missing, or cannot be read, it begins with what the audit log says.
func openHistory(c Config, log *slog.Logger) (*history, error) {
	h := &history{path: filepath.Join(c.Audit, historyName), users: make(map[string]map[string]time.Time)}
	if c.Alerts.Networks != "" {
		data, err := readBounded(c.Alerts.Networks, maxNetworksFile)
		if err != nil {
			return nil, fmt.Errorf("reading the table of networks: %w", err)
		}
		if h.table, err = parseNetworks(c.Alerts.Networks, data); err != nil {
			return nil, err
		}
	}
	data, err := readBounded(h.path, maxHistory)
	if err == nil {
		err = h.parse(data)
	}
	if err == nil {
		return h, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		log.Error("the networks that engineers have used are read from the audit log again", "error", err)
	}
	if err := h.rebuild(c.Audit); err != nil {
		return nil, fmt.Errorf("reading from the audit log which networks engineers have used: %w", err)
	}
	return h, h.save()
}

func (h *history) parse(data []byte) error {
	var f historyFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return fmt.Errorf("reading %s: %w", h.path, err)
	}
	if f.Kind != kindHistory {
		return fmt.Errorf("reading %s: kind %q: want %s", h.path, f.Kind, kindHistory)
	}
	for user, networks := range f.Users {
		for name, at := range networks {
			h.note(user, name, at)
		}
	}
	return nil
}

// rebuild reads the logins of the audit log, the last one last.
func (h *history) rebuild(dir string) error {
	_, err := audit.Read(dir, 0, func(_ uint64, text []byte) error {
		e, err := audit.ParseEntry(text)
		if err != nil || e.Event != eventLogin {
			return err
		}
		var r loginRecord
		if err := json.Unmarshal(e.Record, &r); err != nil || r.Identity != string(policies.KindEngineer) {
			return err
		}
		if source, err := netip.ParseAddrPort(r.Source); err == nil {
			h.note(r.User, h.table.name(source.Addr()), e.Time)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// note remembers that an engineer used a network, and tells whether that is new to somebody who is known.
func (h *history) note(user, name string, at time.Time) (unheard, first bool) {
	networks := h.users[user]
	if networks == nil {
		if len(h.users) >= maxHistoryUsers {
			delete(h.users, oldestKey(h.users, func(n map[string]time.Time) time.Time { return n[newestKey(n)] }))
		}
		networks = make(map[string]time.Time)
		h.users[user] = networks
		first = true
	}
	if _, ok := networks[name]; !ok {
		unheard = true
		if len(networks) >= maxHistoryNetworks {
			delete(networks, oldestKey(networks, func(t time.Time) time.Time { return t }))
		}
	}
	networks[name] = at.UTC().Truncate(time.Second)
	return unheard, first
}

func oldestKey[V any](m map[string]V, at func(V) time.Time) (oldest string) {
	for key, v := range m {
		if oldest == "" || at(v).Before(at(m[oldest])) {
			oldest = key
		}
	}
	return oldest
}

func newestKey(m map[string]time.Time) (newest string) {
	for key, at := range m {
		if newest == "" || at.After(m[newest]) {
			newest = key
		}
	}
	return newest
}

func (h *history) save() error {
	data, err := json.Marshal(historyFile{Kind: kindHistory, Users: h.users})
	if err != nil {
		return err
	}
	return durable.WriteFile(h.path, append(data, '\n'), 0o600)
}

// comesFrom has an engineer's network looked up, by somebody for whom no login waits.
func (v *visit) comesFrom(now time.Time) {
	a := v.server.alerts
	if a == nil || v.credential.identity != policies.KindEngineer {
		return
	}
	select {
	case a.logins <- loginSeen{visit: v, user: v.login.User, id: v.id, source: v.login.Source, at: now}:
	default:
		a.log.Warn("more logins than can be looked at for alerts")
	}
}

// followLogins looks at who was let in, until ctx ends.
func (s *Server) followLogins(ctx context.Context) {
	if s.alerts == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-s.alerts.logins:
			s.lookAt(l)
		}
	}
}

func (s *Server) lookAt(l loginSeen) {
	h := s.alerts.history
	here := h.table.name(l.source)
	unheard, first := h.note(l.user, here, l.at)
	if unheard {
		if err := h.save(); err != nil {
			s.log.Error("a network that an engineer used is not remembered", "error", err)
		}
		if !first {
			s.notify(noticeNetwork, networkNotice{user: l.user, connection: l.id, network: here})
		}
	}
	for other, login := range s.sessions.list() {
		if other == l.visit || login.User != l.user {
			continue
		}
		if there := h.table.name(login.Source); there != here {
			s.notify(noticeNetworks, networkNotice{user: l.user, connection: l.id, network: here, other: there})
			return
		}
	}
}
