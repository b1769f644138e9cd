package power

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Reason codes of what goes wrong with power (docs/manual.md, "Power").
const (
	Unreachable       = "power_unreachable"       // nothing takes a connection there
	Frozen            = "power_frozen"            // it took the connection and does not answer in time
	Reset             = "power_reset"             // it cuts connections
	Busy              = "power_busy"              // it says that it is busy, again and again
	Denied            = "power_denied"            // user or password are wrong, or may not do this
	Refused           = "power_refused"           // it says no
	Redirected        = "power_redirected"        // it sends us elsewhere, where the password shall not go
	Certificate       = "power_certificate"       // its certificate is not the one in the inventory
	Oversize          = "power_oversize"          // its answer is longer than any good one
	Malformed         = "power_malformed"         // its answer is not what the protocol allows
	NotApplied        = "power_not_applied"       // it said yes, and the machine is as before
	StateUnknown      = "power_state_unknown"     // it does not say whether the machine is on
	StateWrong        = "power_state_wrong"       // what it says of the power contradicts itself
	OnAlready         = "power_on_already"        // the machine runs, and not by us or in another life
	NewerLife         = "power_newer_life"        // the machine runs a later life than the one that was to end
	Rationed          = "power_rationed"          // its ration of commands is used up
	BootNotApplied    = "boot_not_applied"        // it said yes, and the next boot is another
	BootStale         = "boot_stale"              // it goes on reporting a next boot that was taken back
	BootUnsupported   = "boot_unsupported"        // it offers no such boot
	MediaNotInserted  = "media_not_inserted"      // it said yes, and the drive is empty or holds something else
	MediaNotConnected = "media_not_connected"     // the medium is in the drive, and the drive at no machine
	MediaNotEjected   = "media_not_ejected"       // it said yes, and the old medium is still there
	ProgramRefused    = "power_program_refused"   // a site's program may not be run: changed, or others can write it
	ProgramFailed     = "power_program_failed"    // it crashed, or does not start
	ProgramLate       = "power_program_late"      // it did not answer in time
	OrderNotDelivered = "power_order_undelivered" // no stream to the server took the order
	OrderNotObeyed    = "power_order_not_obeyed"  // the server goes on after it
	NotRestarted      = "power_not_restarted"     // a life joined on a machine that was not started anew
	SecretMissing     = "power_secret_missing"    // the sealed password can not be opened
	FirmwareMissing   = "power_firmware_missing"  // UEFI's files or programs are not on this host
	MediumMissing     = "power_medium_missing"    // the release has no unified kernel image
)

// Failure is why a driver did not do what it was asked.
type Failure struct {
	Reason string
	Err    error
}

func (f *Failure) Error() string { return f.Reason + ": " + f.Err.Error() }

// Unwrap returns the detail.
func (f *Failure) Unwrap() error { return f.Err }

func failf(reason, format string, args ...any) *Failure {
	return &Failure{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Reason is the code in an error of a driver, or "" where it has none.
func Reason(err error) string {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Reason
	}
	return ""
}

// passing reports whether an error may go away by itself.
func passing(err error) bool {
	switch Reason(err) {
	case Busy, Reset:
		return true
	}
	return false
}

// transport names what happened to a connection. connected says whether there was one at all.
func transport(err error, connected bool) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	var timeout net.Error
	late := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
	switch {
	case late && connected:
		return &Failure{Frozen, err}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Failure{Reset, err}
	}
	return &Failure{Unreachable, err}
}
