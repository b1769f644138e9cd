// Package power switches servers off and on. A driver is idempotent: asked twice for the same server and epoch it acts once.
package power

import (
	"context"

	"mayfly/rebuild/release"
)

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
	Kernel    File
	Stub      File   // the stub's initrd
	Trust     []byte // trust.json, put into the initrd
	Ticket    []byte // the one-time ticket, put into the initrd with mode 0600, never on the command line
	TicketSig []byte // its SSHSIG, beside it
	Cmdline   string // kernel command line of the release
}

// File is a file of the release, with what was signed about it. Nothing checks it after the driver: a driver boots the very bytes
// that it has compared with Signed, never what the path names later.
type File struct {
	Path   string
	Signed release.Part
}

// Status is what was read back.
type Status struct {
	On    bool
	Epoch uint64 // of the running boot; 0 when off or unknown
}
