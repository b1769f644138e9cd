package store

import (
	"encoding/json"
	"net/netip"
	"time"

	"mayfly/inventory"
)

// Server is what is known of one server and of its current life.
type Server struct {
	Name        string          `json:"name"`
	State       inventory.State `json:"state"`
	Epoch       uint64          `json:"epoch"`             // of the current life; 0 before the first
	Since       time.Time       `json:"since,omitzero"`    // of the state
	Cause       string          `json:"cause,omitempty"`   // of the last transition
	Release     string          `json:"release,omitempty"` // version or hash that this life boots, as SetRelease put it
	BootID      string          `json:"boot_id,omitempty"`
	HostKey     string          `json:"host_key,omitempty"`
	TunnelKey   string          `json:"tunnel_key,omitempty"`
	TLSKey      string          `json:"tls_key,omitempty"`  // SHA-256 of the Ed25519 key in its certificate, hex: binds connections to this life
	Evidence    string          `json:"evidence,omitempty"` // what is known of its boot: "attested", "claimed" or "unverified"; "" before it has joined
	BootedAt    time.Time       `json:"booted_at,omitzero"` // when it went to Booting
	JoinedAt    time.Time       `json:"joined_at,omitzero"`
	Deadline    time.Time       `json:"deadline,omitzero"` // when this life ends itself
	Health      json.RawMessage `json:"-"`
	HealthAt    time.Time       `json:"-"`
	Drained     bool            `json:"drained,omitempty"`
	DrainForced bool            `json:"drain_forced,omitempty"`
	Revoked     bool            `json:"revoked,omitempty"` // the ticket of this life came twice: it gets no stream and no certificate any more

	Tainted     bool      `json:"tainted,omitempty"`   // an engineer was let onto this life: it never serves again
	HeldUntil   time.Time `json:"held_until,omitzero"` // until then the engineer may be on it, and nobody rebuilds it
	TaintReason string    `json:"taint_reason,omitempty"`

	Extended bool `json:"extended,omitempty"` // approvers let this life go on beyond its first deadline
}

// Joined is what a server said of itself when it joined.
type Joined struct {
	BootID    string
	HostKey   string
	TunnelKey string
	TLSKey    string
	Evidence  string // what the signer found
	At        time.Time
	Deadline  time.Time
}

// Event is one transition.
type Event struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Server string    `json:"server"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Epoch  uint64    `json:"epoch"`
	Cause  string    `json:"cause,omitempty"`
}

// DrainOrder asks the server that is in life Epoch to drain within Limit.
type DrainOrder struct {
	Epoch uint64        `json:"epoch"`
	Limit time.Duration `json:"limit_ns"`
}

// Restart orders the life Epoch of a server to start its machine anew. Its bytes are for the server, which verifies them by itself.
type Restart struct {
	Epoch     uint64    `json:"epoch"`
	File      []byte    `json:"file"` // exact bytes
	Sig       []byte    `json:"sig"`
	NotAfter  time.Time `json:"not_after"`
	Delivered time.Time `json:"delivered,omitzero"` // when it was written to the server's stream; zero: not yet
}

// Extension lets the life Epoch of a server go on. Its bytes are for the server, which verifies them by itself.
type Extension struct {
	Epoch     uint64 `json:"epoch"`
	Statement []byte `json:"statement"` // exact bytes
	Sig       []byte `json:"sig"`
}

// Login is an engineer's login that a server reported.
type Login struct {
	Server string         `json:"server"`
	Epoch  uint64         `json:"epoch"`
	Number uint64         `json:"number"` // of that life's logins, from 1
	At     time.Time      `json:"at"`     // by the server's clock
	Seen   time.Time      `json:"seen"`   // by the controller's
	User   string         `json:"user,omitempty"`
	Method string         `json:"method,omitempty"`
	Key    string         `json:"key,omitempty"` // SHA-256 fingerprint
	Peer   netip.AddrPort `json:"peer,omitzero"`
	Unread string         `json:"unread,omitempty"` // a line that the server could not read, instead of the four above
	Missed uint64         `json:"missed,omitempty"` // logins before this one that the server could not keep
}
