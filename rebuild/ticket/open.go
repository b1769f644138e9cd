package ticket

import (
	"fmt"
	"time"

	"mayfly/policies/trust"
)

// Reason codes of refused tickets.
const (
	Unsigned   = "ticket_unsigned"    // not signed by a ticket key of the trust policy
	Malformed  = "ticket_malformed"   // signed, but not what the format allows
	OtherFleet = "ticket_other_fleet" // signed for another fleet than the trust policy's
	Expired    = "ticket_expired"     // its time to join is over
)

// Refusal is why a ticket is not believed.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }

// Refused makes a program end with the exit code of a refusal.
func (r *Refusal) Refused() bool { return true }

// Unwrap returns the detail.
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Open believes a ticket or refuses it with a *Refusal. The signature is checked over the exact bytes before they are parsed.
func Open(t *trust.Trust, data, sig []byte, now time.Time) (*Ticket, error) {
	switch {
	case t == nil || t.Fleet == "" || len(t.TicketKeys) == 0:
		return nil, refuse(Unsigned, "the trust policy names no ticket key")
	case len(data) == 0 || len(data) > MaxBytes:
		return nil, refuse(Malformed, "ticket of %d bytes, not 1 to %d", len(data), MaxBytes)
	case len(sig) == 0 || len(sig) > MaxSignatureBytes:
		return nil, refuse(Unsigned, "signature of %d bytes, not 1 to %d", len(sig), MaxSignatureBytes)
	}
	if err := trust.VerifyAny(t.TicketKeys, Namespace, data, sig); err != nil {
		return nil, refuse(Unsigned, "checking the ticket's signature: %w", err)
	}
	parsed, err := parse(data)
	if err != nil {
		return nil, refuse(Malformed, "%w", err)
	}
	if err := parsed.check(); err != nil {
		return nil, refuse(Malformed, "checking ticket: %w", err)
	}
	if parsed.Fleet != t.Fleet {
		return nil, refuse(OtherFleet, "ticket of fleet %q, this is %q", parsed.Fleet, t.Fleet)
	}
	if now.After(parsed.NotAfter) {
		return nil, refuse(Expired, "the ticket for %q ended at %s", parsed.Server, parsed.NotAfter.Format(time.RFC3339))
	}
	return parsed, nil
}
