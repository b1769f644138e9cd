package store

import (
	"context"
	"time"
)

// Claim is the right of one controller to carry one server on. It is a lease: it ends by itself, so that a dead holder blocks nobody.
type Claim struct {
	Server  string    `json:"server"`
	Holder  string    `json:"holder"` // one process of one controller
	Token   uint64    `json:"token"`  // rises with every claim of the server
	Expires time.Time `json:"expires"`
}

// Shared begins the name of a claim that is no server's: a place that controllers share (fleetctl/grant). No server's name begins with it.
const Shared = "@"

// Claims are leases on servers, and the fence that they are.
type Claims interface {
	// Claim takes the server for ttl, or fails with ErrClaimed while another holder's claim lasts. A holder that claims again what it
	// holds gets a new token. ErrUnknown for a name that is neither a server's nor begins with Shared.
	Claim(ctx context.Context, server, holder string, ttl time.Duration, now time.Time) (Claim, error)
	// Renew lets a claim go on for ttl from now, with the same token, or fails with ErrFenced: when it is over and another has been
	// made, at the latest. A store whose claims end by a clock of its own fails as soon as that has ended it.
	Renew(ctx context.Context, c Claim, ttl time.Duration, now time.Time) (Claim, error)
	// Release ends a claim. One that is over already is no error.
	Release(ctx context.Context, c Claim) error
	// Claims returns those that last at now, by server.
	Claims(ctx context.Context, now time.Time) ([]Claim, error)
	// Fenced is the same store for the claim's holder: what it writes of the claim's server (moves, lives, tickets, orders, journal, ends of rotations)
	// fails with ErrFenced, in the writing transaction, once another claim of that server was made, or this one was released.
	Fenced(c Claim) Store
}
