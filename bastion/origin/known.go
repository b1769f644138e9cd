package origin

import (
	"bytes"
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
	knownName = "known_networks.json"
	kindKnown = "mayfly-known-networks/1"
)

// Bounds of that file. Who used a network longest ago is forgotten first.
const (
	maxKnown        = 4 << 20
	maxUsers        = 1024
	maxUserNetworks = 32 // of one engineer
)

// Known is which networks engineers have used. It belongs to one goroutine.
type Known struct {
	path  string
	table Table
	users map[string]map[string]time.Time // by engineer and network: when last
}

// login is what is read of the records of logins (docs/formats/audit.md).
type login struct {
	User     string `json:"user"`
	Identity string `json:"identity"`
	Source   string `json:"source"`
}

const eventLogin = "login"

type knownFile struct {
	Kind  string                          `json:"kind"`
	Users map[string]map[string]time.Time `json:"users"`
}

// Open reads the table of networks, if there is one, and what is kept beside the audit log in dir; where that is missing, or cannot be read, it begins
// with what the audit log says.
func Open(dir, table string, log *slog.Logger) (*Known, error) {
	k := &Known{path: filepath.Join(dir, knownName), users: make(map[string]map[string]time.Time)}
	if table != "" {
		var err error
		if k.table, err = ReadTable(table); err != nil {
			return nil, err
		}
	}
	data, err := durable.ReadRegular(k.path, maxKnown)
	if err == nil {
		err = k.parse(data)
	}
	if err == nil {
		return k, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		log.Error("the networks that engineers have used are read from the audit log again", "error", err)
	}
	if err := k.rebuild(dir); err != nil {
		return nil, fmt.Errorf("reading from the audit log which networks engineers have used: %w", err)
	}
	return k, k.Save()
}

func (k *Known) parse(data []byte) error {
	var f knownFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return fmt.Errorf("reading %s: %w", k.path, err)
	}
	if f.Kind != kindKnown {
		return fmt.Errorf("reading %s: kind %q: want %s", k.path, f.Kind, kindKnown)
	}
	for user, networks := range f.Users {
		for name, at := range networks {
			k.Note(user, name, at)
		}
	}
	return nil
}

// rebuild reads the logins of the audit log, the last one last.
func (k *Known) rebuild(dir string) error {
	_, err := audit.Read(dir, 0, func(_ uint64, text []byte) error {
		e, err := audit.ParseEntry(text)
		if err != nil || e.Event != eventLogin {
			return err
		}
		var r login
		if err := json.Unmarshal(e.Record, &r); err != nil || r.Identity != string(policies.KindEngineer) {
			return err
		}
		if source, err := netip.ParseAddrPort(r.Source); err == nil {
			k.Note(r.User, k.Network(source.Addr()), e.Time)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Network of an address: the table's name, or the prefix that it is in.
func (k *Known) Network(a netip.Addr) string { return k.table.Name(a) }

// Note remembers that an engineer used a network, and tells whether that is new to somebody who is known.
func (k *Known) Note(user, name string, at time.Time) (unheard, first bool) {
	networks := k.users[user]
	if networks == nil {
		if len(k.users) >= maxUsers {
			delete(k.users, oldestKey(k.users, func(n map[string]time.Time) time.Time { return n[newestKey(n)] }))
		}
		networks = make(map[string]time.Time)
		k.users[user] = networks
		first = true
	}
	if _, ok := networks[name]; !ok {
		unheard = true
		if len(networks) >= maxUserNetworks {
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

// Save writes it down, durably.
func (k *Known) Save() error {
	data, err := json.Marshal(knownFile{Kind: kindKnown, Users: k.users})
	if err != nil {
		return err
	}
	return durable.WriteFile(k.path, append(data, '\n'), 0o600)
}
