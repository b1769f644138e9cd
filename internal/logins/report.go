package logins

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Report is one login on one server, as `fleetctl logins -o json` lists it and `bastion audit reconcile` reads it.
type Report struct {
	Time   time.Time      `json:"time"`   // by the server's clock
	Server string         `json:"server"` // name in the inventory
	Epoch  uint64         `json:"epoch,omitempty"`
	User   string         `json:"user"`
	Method string         `json:"method"`
	Key    string         `json:"key"` // SHA-256 fingerprint
	Peer   netip.AddrPort `json:"peer"`
	Unread string         `json:"unread,omitempty"` // instead of user, method, key and peer: a line that could not be read
}

// List is a file of reports.
type List struct {
	Logins []Report `json:"logins"`
}

// MaxList bounds a file of reports, in bytes.
const MaxList = 256 << 20

// ParseList reads what `fleetctl logins -o json` writes.
func ParseList(data []byte) (List, error) {
	var l List
	if len(data) > MaxList {
		return l, fmt.Errorf("longer than %d bytes", MaxList)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return List{}, fmt.Errorf("not a list of logins: %w", err)
	}
	if l.Logins == nil {
		return List{}, errors.New("not a list of logins: it has none, not even an empty one")
	}
	for i, r := range l.Logins {
		if r.Server == "" || r.Time.IsZero() || (r.Unread == "") == (r.User == "" || !r.Peer.IsValid()) {
			return List{}, fmt.Errorf("login %d: server, time, user or peer is missing", i+1)
		}
	}
	return l, nil
}
