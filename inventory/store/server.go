package store

import (
	"encoding/json"
	"net/netip"
	"time"

	"mayfly/inventory"
)

// Server is what is known of one server and of its current life.
type Server struct {
	Name        string
	State       inventory.State
	Epoch       uint64    // of the current life; 0 before the first
	Since       time.Time // of the state
	Cause       string    // of the last transition
	Release     string    // version or hash that this life boots, as SetRelease put it
	BootID      string
	HostKey     string
	TunnelKey   string
	TLSKey      string    // SHA-256 of the Ed25519 key in its certificate, hex: binds connections to this life
	Evidence    string    // what is known of its boot: "attested", "claimed" or "unverified"; "" before it has joined
	BootedAt    time.Time // when it went to Booting
	JoinedAt    time.Time
	Deadline    time.Time // when this life ends itself
	Health      json.RawMessage
	HealthAt    time.Time
	Drained     bool
	DrainForced bool
	Revoked     bool // the ticket of this life came twice: it gets no stream and no certificate any more

	Tainted     bool      // an engineer was let onto this life: it never serves again
	HeldUntil   time.Time // until then the engineer may be on it, and nobody rebuilds it
	TaintReason string

	Extended bool // approvers let this life go on beyond its first deadline
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
	ID     int64
	At     time.Time
	Server string
	From   string
	To     string
	Epoch  uint64
	Cause  string
}

// DrainOrder asks the server that is in life Epoch to drain within Limit.
type DrainOrder struct {
	Epoch uint64
	Limit time.Duration
}

// Restart orders the life Epoch of a server to start its machine anew. Its bytes are for the server, which verifies them by itself.
type Restart struct {
	Epoch     uint64
	File      []byte // exact bytes
	Sig       []byte
	NotAfter  time.Time
	Delivered time.Time // when it was written to the server's stream; zero: not yet
}

// Extension lets the life Epoch of a server go on. Its bytes are for the server, which verifies them by itself.
type Extension struct {
	Epoch     uint64
	Statement []byte // exact bytes
	Sig       []byte
}

// Login is an engineer's login that a server reported.
type Login struct {
	Server string
	Epoch  uint64
	Number uint64    // of that life's logins, from 1
	At     time.Time // by the server's clock
	Seen   time.Time // by the controller's
	User   string
	Method string
	Key    string // SHA-256 fingerprint
	Peer   netip.AddrPort
	Unread string // a line that the server could not read, instead of the four above
	Missed uint64 // logins before this one that the server could not keep
}
