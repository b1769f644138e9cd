// Package power switches servers off and on. A driver is idempotent: asked twice for the same server and epoch it acts once. Every
// write is read back: what answers "done" and does nothing is found out, with a reason code (failure.go).
//
// Drivers: qemu.go (a machine on this host, firmware.go for UEFI and TPM), redfish*.go and ipmi.go (a BMC), exec.go and plugin.go (a
// site's own program), order.go (a signed order to the server itself), container.go (a container of a test fleet). All but QEMU share remote.go: retries, read-back, what was begun.
package power

import (
	"context"
	"errors"
	"math"
	"time"

	"mayfly/rebuild/release"
)

// Driver switches one server.
type Driver interface {
	// SetBoot has the machine's next boot be this one, and reads that back. The machine is off, or about to be.
	SetBoot(ctx context.Context, boot Boot) error
	// Off ends the machine and returns once it has been read back as off. Off of a machine that is off is nil.
	Off(ctx context.Context) error
	// On boots the machine with this specification, after SetBoot if that was not done for this epoch. If it already runs with the
	// same epoch, On does nothing.
	On(ctx context.Context, boot Boot) error
	// Status reads back what the machine does now.
	Status(ctx context.Context) (Status, error)
	// Console returns the end of what the machine has said since it was switched on, at most MaxConsole bytes; ErrNoConsole where nobody hears it.
	Console(ctx context.Context) ([]byte, error)
	// Joined takes away what the life booted from: the ticket in it is used.
	Joined(ctx context.Context) error
}

// Fencer is a driver that knows, under the lock of its machine, which life it runs.
type Fencer interface {
	// OffThrough is Off of this life or an earlier one. A machine that runs a newer one is left alone: NewerLife. Who asks was stopped, and the
	// world went on.
	OffThrough(ctx context.Context, epoch uint64) error
}

// newest is beyond every life: Off ends whatever runs.
const newest = math.MaxUint64

// fence refuses to end a life that is newer than who asks knows.
func fence(runs, through uint64) error {
	if runs > through {
		return failf(NewerLife, "the machine runs life %d, and life %d was to end", runs, through)
	}
	return nil
}

// MaxConsole bounds what Console returns.
const MaxConsole = 16 << 10

// ErrNoConsole is the answer of a driver that hears nothing of its machine.
var ErrNoConsole = errors.New("this power driver has no console")

// Boot is what a machine is started with.
type Boot struct {
	Epoch     uint64 // the life that this boot begins
	Kernel    File
	Stub      File      // the stub's initrd
	UKI       File      // the unified kernel image, for machines that boot by UEFI; signed for Secure Boot or not
	Root      File      // for containers, which no stub fetches it for
	Statement []byte    // release.json, likewise
	Trust     []byte    // trust.json, put into the initrd
	Ticket    []byte    // the one-time ticket, put into the initrd with mode 0600, never on the command line
	TicketSig []byte    // its SSHSIG, beside it
	Cmdline   string    // kernel command line of the release
	NotAfter  time.Time // the ticket's: nothing is offered longer
}

// File is a file of the release, with what was signed about it. Nothing checks it after the driver: a driver boots the very bytes
// that it has compared with Signed, never what the path names later.
type File struct {
	Path   string
	Signed release.Part
}

// Status is what was read back.
type Status struct {
	On      bool
	Epoch   uint64 // of the running boot; 0 when off or unknown
	Unknown bool   // nobody can tell whether it is on: there is no BMC. On is then what was last asked for.
}
