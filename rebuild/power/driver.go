// Package power switches servers off and on. A driver is idempotent: asked twice for the same server and epoch it acts once.
package power

import "context"

// Driver switches one server.
type Driver interface {
	// Off ends the machine and returns once it has been read back as off. Off of a machine that is off is nil.
	Off(ctx context.Context) error
	// On boots the machine with this specification. If it already runs with the same epoch, On does nothing.
	On(ctx context.Context, boot Boot) error
	// Status reads back what the machine does now.
	Status(ctx context.Context) (Status, error)
}

// Boot is what a machine is started with.
type Boot struct {
	Epoch     uint64 // the life that this boot begins
	Kernel    string // path
	Stub      string // path of the stub's initrd
	Trust     []byte // trust.json, put into the initrd
	Ticket    []byte // the one-time ticket, put into the initrd with mode 0600, never on the command line
	TicketSig []byte // its SSHSIG, beside it
	Cmdline   string // kernel command line of the release
}

// Status is what was read back.
type Status struct {
	On    bool
	Epoch uint64 // of the running boot; 0 when off or unknown
}
