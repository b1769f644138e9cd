package join

import (
	"errors"
	"fmt"

	"mayfly/rebuild/ticket"
)

// Reason codes of the join port.
const (
	BodyOversize     = "body_oversize"     // a body or line over its bound
	BodyMalformed    = "body_malformed"    // not exactly the JSON that the format allows
	RequestInvalid   = "request_invalid"   // a field holds what it must not
	TicketUnknown    = "ticket_unknown"    // the controller issued no such ticket
	TicketUsed       = "ticket_used"       // second use: what the first use got is revoked
	TicketRevoked    = "ticket_revoked"    // a later ticket took its place
	TicketOlder      = "ticket_older"      // a later life of this server has begun
	StillServing     = "still_serving"     // it is to be restarted, and has users
	TicketAhead      = "ticket_ahead"      // its life is further on than any that can be the next
	LifeRevoked      = "life_revoked"      // this life may not go on
	LifeDrained      = "life_drained"      // an engineer was let onto this life: it ends, and the next begins later
	LifeUnknown      = "life_unknown"      // no life with these keys
	LifeOver         = "life_over"         // the end of life has passed
	CertificateBad   = "certificate_bad"   // missing, expired, of another CA or another server
	ProofBad         = "proof_bad"         // not signed with the key that the certificate names
	ServerUnknown    = "server_unknown"    // not in the signed inventory
	NotInInventory   = "not_in_inventory"  // differs from the signed inventory
	NameNotAllowed   = "name_not_allowed"  // this name gets no such certificate
	LifetimeTooLong  = "lifetime_too_long" // longer than policy or signer allows
	RateLimited      = "rate_limited"      // asked too often
	CallerRefused    = "caller_refused"    // the signer's socket: another user's to ask
	Busy             = "busy"              // over a bound of the controller; nothing was used up, ask again
	StateWrong       = "state_wrong"       // the server is not being booted
	ControllerFailed = "controller_failed" // the controller could not do its part
	BundleMissing    = "bundle_missing"    // no signed policy is in force
	HostUnknown      = "host_unknown"      // no host of this name was certified with this key
	RequestUsed      = "request_used"      // as late a request was answered before
	AuditRefused     = "audit_refused"     // not what follows in the audit log of this life
	ChallengeUnknown = "challenge_unknown" // no such challenge, or it was answered before
	ChallengeExpired = "challenge_expired" // answered too late
	ChallengeOther   = "challenge_other"   // it is of another server, ticket or keys
	ChallengeLimit   = "challenge_limit"   // too many challenges that nobody has answered
	TimeWrong        = "time_wrong"        // the request is not of now; compare the clocks
	ReleaseUnlogged  = "release_unlogged"  // the ledger does not hold the release
	ReleaseForked    = "release_forked"    // the ledger holds another release of this version
	ReleaseFrozen    = "release_frozen"    // older than the oldest that may still boot
	LedgerMissing    = "ledger_missing"    // the fleet's trust policy names no ledger
)

// Refusal is how the controller and the signer say no. It is also the JSON body of their error answers.
type Refusal struct {
	Reason string `json:"reason"`
	Detail string `json:"detail,omitempty"`
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return r.Reason
	}
	return r.Reason + ": " + r.Detail
}

// Refused makes a program end with the exit code of a refusal.
func (r *Refusal) Refused() bool { return true }

// Refuse makes a refusal.
func Refuse(reason, format string, args ...any) *Refusal {
	d := fmt.Sprintf(format, args...)
	if len(d) > MaxDetail {
		d = d[:MaxDetail]
	}
	return &Refusal{Reason: reason, Detail: d}
}

// RefuseTicket turns a ticket's refusal into the protocol's. Any other error stays what it is.
func RefuseTicket(err error) error {
	if r, ok := errors.AsType[*ticket.Refusal](err); ok {
		return Refuse(r.Reason, "%v", r.Err)
	}
	return err
}
