// Package store is what the controller keeps of each server: its state, its life's epoch and keys, tickets, orders, claims and the
// journal of runs. It is an interface with two keepers: store/sqlite, one file that the processes of one controller open at once, and
// store/etcd, which several controllers share. store/storetest is what both have to pass.
//
// Every change is one transaction with its event in the same transaction, and compares before it sets: server,
// epoch and state must be what the caller believes, or the change fails with ErrStale and nothing is written. A returned
// change is durable. The store never reads the clock, and holds no secret: of a ticket it keeps the hash.
//
// Read store.go, server.go, claim.go, run.go, release.go, content.go, transfer.go.
package store

import (
	"context"
	"errors"
	"io"
	"time"

	"mayfly/inventory"
)

// Errors that callers branch on, with errors.Is.
var (
	ErrUnknown       = errors.New("no such server in the store")
	ErrStale         = errors.New("the server's state has changed meanwhile")
	ErrIllegal       = errors.New("not a legal transition")
	ErrTicketUnknown = errors.New("ticket is unknown")
	ErrTicketUsed    = errors.New("ticket was used before")
	ErrTicketExpired = errors.New("ticket has expired")
	ErrTicketRevoked = errors.New("ticket was replaced by a newer one")
	ErrRunOpen       = errors.New("another run is not finished")
	ErrTainted       = errors.New("an engineer was let onto this life: it is rebuilt before it serves again")
	ErrHeld          = errors.New("an engineer may be on it")
	ErrPolicyOlder   = errors.New("a newer policy was in force")
	ErrClaimed       = errors.New("another controller carries this server on")
	ErrFenced        = errors.New("the claim is over: another controller may carry the server on")
	ErrEnded         = errors.New("this rotation has ended before")
	ErrBad           = errors.New("the release is marked bad, for good")
	ErrNewer         = errors.New("a newer program wrote this store")
	ErrNotEmpty      = errors.New("the store is not empty")
)

// Check is asked inside a transaction: all servers as they are, so that nothing can change between its answer and the change.
type Check = func([]Server) error

// Store is an open state store. It may be used by several goroutines, and by several processes.
type Store interface {
	Lives
	Tickets
	Orders
	Claims
	Runs
	Releases

	// PolicyVersion is the newest policy version that was ever acted under; 0 for none.
	PolicyVersion(ctx context.Context) (uint64, error)
	// ActUnder remembers that a policy of this version is acted under from now on, or fails with ErrPolicyOlder.
	ActUnder(ctx context.Context, version uint64) error

	// AddLogin keeps a login, once: fresh is false for one that is there already.
	AddLogin(ctx context.Context, l Login) (fresh bool, err error)
	// Logins returns the logins that the controller heard of at since or later, in the order in which it did.
	Logins(ctx context.Context, since time.Time) ([]Login, error)

	// Export writes all that the store holds, but for claims, as it is at one moment (docs/formats/backup.md).
	Export(ctx context.Context, w io.Writer) error
	// Import fills a store that knows no server with what Export wrote, wholly or not at all, or fails with ErrNotEmpty. Tickets that
	// were not used are revoked: who took the export may have used them since.
	Import(ctx context.Context, r io.Reader) error

	Close() error
}

// Lives are the servers and their states.
type Lives interface {
	// Sync adds the fleet's servers that the store does not know yet, as New, and keeps all others.
	Sync(ctx context.Context, fleet inventory.Fleet, now time.Time) error
	// Servers returns all servers by name.
	Servers(ctx context.Context) ([]Server, error)
	// Server returns one server, or ErrUnknown.
	Server(ctx context.Context, name string) (Server, error)

	// Joined records what a server said when it joined and moves it from Booting to Attesting, in one transaction.
	Joined(ctx context.Context, name string, epoch uint64, j Joined) error
	// SetHealth keeps the newest health report of a life, as the server sent it.
	SetHealth(ctx context.Context, name string, epoch uint64, health []byte, at time.Time) error
	// SetDrained records that a life has drained; forced, if peers were left when the bound passed.
	SetDrained(ctx context.Context, name string, epoch uint64, forced bool) error
	// SetRelease records which release a life boots.
	SetRelease(ctx context.Context, name string, epoch uint64, release string) error

	// Move takes a server from one state to another. It fails with ErrIllegal for a transition that is not in the table and for one to
	// Wiping, which ends a life and is BeginLife's; and with ErrStale if the server is not in that life and state.
	Move(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time) error
	// MoveChecked is Move if check agrees: a floor that holds then holds after.
	MoveChecked(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time, check Check) error
	// BeginLife is Move to Wiping and the beginning of the next life, whose number it returns, in one transaction, if check, which
	// may be nil, agrees. What was known of the old life (keys, health, drain) is gone, and its unused tickets are revoked.
	BeginLife(ctx context.Context, name string, epoch uint64, from inventory.State, cause string, now time.Time, check Check) (uint64, error)
	// Events returns the transitions after the one with this ID, oldest first; 0 for all. It returns a bounded number: ask again
	// with the last ID until none comes.
	Events(ctx context.Context, after int64) ([]Event, error)

	// Taint takes a serving server out for an engineer, if check agrees: it drains, and this life is tainted, in one transaction.
	Taint(ctx context.Context, name string, epoch uint64, reason string, held, now time.Time, check Check) error
	// Hold changes until when nobody rebuilds a tainted life.
	Hold(ctx context.Context, name string, epoch uint64, until time.Time) error
}

// Tickets are kept by their hashes.
type Tickets interface {
	// PutTicket records a ticket for a server's current life by the SHA-256 of its exact bytes. Earlier tickets of that server that
	// were not used are revoked.
	PutTicket(ctx context.Context, name string, epoch uint64, hash [32]byte, notAfter time.Time) error
	// UseTicket uses a ticket up. Only the first use of a known, unrevoked, unexpired ticket returns nil. A second use
	// returns ErrTicketUsed and revokes the life that the first use began.
	UseTicket(ctx context.Context, hash [32]byte, name string, epoch uint64, now time.Time) error
	// Revoked reports whether a life was revoked because its ticket came twice.
	Revoked(ctx context.Context, name string, epoch uint64) (bool, error)
}

// Orders are what servers are told, and what they report of a boot that failed.
type Orders interface {
	// OrderDrain asks a server's current life to drain. Ordering twice is ordering once, with the later limit.
	OrderDrain(ctx context.Context, name string, epoch uint64, limit time.Duration) error
	// Drains returns the orders that stand, by server.
	Drains(ctx context.Context) (map[string]DrainOrder, error)
	// BootFailed records why a life did not come up. The first report of a life stands: it is the cause.
	BootFailed(ctx context.Context, name string, epoch uint64, reason, detail string, at time.Time) error
	// LastFailure returns why a life did not come up, if it said so.
	LastFailure(ctx context.Context, name string, epoch uint64) (reason, detail string, ok bool, err error)
	// OrderRestart lays down an order for the server's current life. A later one takes the place of an earlier one.
	OrderRestart(ctx context.Context, name string, r Restart) error
	// RestartDelivered says that the order was written to the stream of this life.
	RestartDelivered(ctx context.Context, name string, epoch uint64, at time.Time) error
	// Restarts returns the newest order of each server that has one.
	Restarts(ctx context.Context) (map[string]Restart, error)
	// Extend keeps an extension for delivery to the server's current life, and moves the life's deadline.
	Extend(ctx context.Context, name string, until time.Time, e Extension) error
	// Extensions returns the newest extension of each server that has one.
	Extensions(ctx context.Context) (map[string]Extension, error)
}
