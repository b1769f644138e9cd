package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// Reason codes of the stub's own. Those of packages ticket and release are passed on as they are.
const (
	bootFailed     = "boot_failed"          // the kernel or the initramfs is not what it should be
	internalError  = "internal_error"       // a mistake of this program
	clockBehind    = "clock_before_build"   // the clock is earlier than the image
	trustMalformed = "trust_malformed"      // the trust policy in the initramfs is missing or malformed
	ticketMissing  = "ticket_missing"       // the power driver handed over no ticket
	networkFailed  = "network_failed"       // no network device, or its settings were not taken
	leaseDiffers   = "lease_differs"        // the network's DHCP gives this machine another address than its ticket
	fetchFailed    = "fetch_failed"         // the release could not be fetched, though tried again
	fetchOversize  = "fetch_oversize"       // an answer over its bound
	notTicketed    = "release_not_ticketed" // signed, but not the release that the ticket names
	tpmMissing     = "tpm_missing"          // the ticket asks for a TPM, and the machine has none
	tpmFailed      = "tpm_failed"           // the TPM did not take what was measured
	rootTooBig     = "root_too_big"         // the root does not fit into this machine's memory
	rootUnusable   = "root_unusable"        // the root is what was signed, and cannot be mounted or started
	maxConsoleText = 2000
)

// refusal is a failure with a reason code.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refusef(reason, format string, args ...any) error {
	return &refusal{reason: reason, err: fmt.Errorf(format, args...)}
}

// reasonOf finds the reason code in an error.
func reasonOf(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason
	}
	if r, ok := errors.AsType[*ticket.Refusal](err); ok {
		return r.Reason
	}
	if r, ok := errors.AsType[*release.Refusal](err); ok {
		return r.Reason
	}
	return bootFailed
}

// refuse prints why the boot stopped, and tells the controller when there is a believed ticket that names one.
func (b *boot) refuse(err error) {
	reason, detail := reasonOf(err), oneLine(err.Error())
	b.say("refused: %s: %s", reason, detail)
	if b.ticket == nil || !b.online {
		return
	}
	b.report(reason, detail)
}

// oneLine makes a text fit for a console and a report: printable, bounded.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, text)
	return firstOf(text, maxConsoleText)
}

func firstOf(text string, n int) string { return text[:min(len(text), n)] }

// hold keeps the machine as it is until its power driver ends it.
func hold() {
	for {
		time.Sleep(time.Hour)
	}
}
