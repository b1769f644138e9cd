package agent

import (
	"context"
	"errors"
	"fmt"

	"mayfly/internal/hint"
)

// Reason says in one word why a request was refused. docs/formats/agent.md explains each.
type Reason string

// Reasons.
const (
	ReasonPeer          Reason = "agent_peer"
	ReasonFull          Reason = "agent_full"
	ReasonTooLong       Reason = "agent_too_long"
	ReasonMalformed     Reason = "agent_malformed"
	ReasonUnsupported   Reason = "agent_unsupported"
	ReasonInternal      Reason = "agent_internal"
	ReasonBindMalformed Reason = "agent_bind_malformed"
	ReasonBindSignature Reason = "agent_bind_signature"
	ReasonBindOrder     Reason = "agent_bind_order"
	ReasonBindFull      Reason = "agent_bind_full"
	ReasonUnknownKey    Reason = "agent_unknown_key"
	ReasonUnknownData   Reason = "agent_unknown_data"
	ReasonWrongKey      Reason = "agent_wrong_key"
	ReasonWrongSession  Reason = "agent_wrong_session"
	ReasonUnbound       Reason = "agent_unbound"
	ReasonForwarded     Reason = "agent_forwarded"
	ReasonHostRevoked   Reason = "agent_host_revoked"
	ReasonClientGone    Reason = "client_gone"
	ReasonChain         Reason = "chain_refused"

	ReasonPINUnavailable Reason = "pin_unavailable"
	ReasonPINCancelled   Reason = "pin_cancelled"
	ReasonPINTimeout     Reason = "pin_timeout"
	ReasonPINWrong       Reason = "pin_wrong"
	ReasonPINBlocked     Reason = "pin_blocked"
	ReasonTouchTimeout   Reason = "touch_timeout"

	ReasonCardsUnavailable Reason = "cards_unavailable"
	ReasonCardGone         Reason = "card_gone"
	ReasonCardBusy         Reason = "card_busy"
	ReasonCardTimeout      Reason = "card_timeout"
	ReasonCardSignature    Reason = "card_signature"
	ReasonCardFailed       Reason = "card_failed"
)

// Refusal is a request that was not done: why, for programs and for people. Its error carries a hint where there is a mend.
type Refusal struct {
	Reason Reason
	err    error
}

func (r *Refusal) Error() string { return r.err.Error() }
func (r *Refusal) Unwrap() error { return r.err }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, err: fmt.Errorf(format, args...)}
}

// hint adds the mend.
func (r *Refusal) hint(format string, args ...any) *Refusal {
	return &Refusal{Reason: r.Reason, err: hint.New(r.err, format, args...)}
}

// Causes that what asks for a PIN tells apart.
var (
	errPINCancelled   = errors.New("the PIN was not given: cancelled")
	errPINTimeout     = errors.New("the PIN was not given in time")
	errPINUnavailable = errors.New("no way to ask for the PIN")
	errPINTries       = errors.New("the PIN was wrong too often")
	errTouchTime      = errors.New("nobody touched the key in time")
	errCardTime       = errors.New("the card did not answer in time")
	errChainTime      = errors.New("it does not answer")
	errClientGone     = errors.New("the client went away")
	errStopped        = errors.New("the agent ends")
)

// refusalOf names the cause of a failed card operation. cause is that of the operation's context, nil while it lives.
func refusalOf(card CardInfo, err, cause error) *Refusal {
	is := func(target error) bool { return errors.Is(err, target) || errors.Is(cause, target) }
	switch {
	case is(errClientGone):
		return refuse(ReasonClientGone, "%w", errClientGone)
	case is(errStopped):
		return refuse(ReasonClientGone, "%w", errStopped)
	case is(errPINCancelled):
		return refuse(ReasonPINCancelled, "%w", errPINCancelled)
	case is(errPINTimeout):
		return refuse(ReasonPINTimeout, "%w", errPINTimeout).hint("ssh again; --pin-timeout says how long the agent waits")
	case is(errPINUnavailable):
		return refuse(ReasonPINUnavailable, "%w", err).hint("install pinentry, or start the agent in a terminal; --pin says in which order ways are tried")
	case is(ErrPINBlocked):
		return refuse(ReasonPINBlocked, "%s: %w", card, err).hint("only the PUK unblocks it: ykman piv access unblock-pin, or yubico-piv-tool -a unblock-pin")
	case is(errPINTries), is(ErrPINWrong):
		return refuse(ReasonPINWrong, "%s: %w", card, err).hint("a wrong PIN each counts towards the card's bound, after which only the PUK helps")
	case is(errTouchTime), is(ErrNoTouch):
		return refuse(ReasonTouchTimeout, "%s: %w", card, errTouchTime).hint("touch the key while it blinks")
	case is(ErrGone):
		return refuse(ReasonCardGone, "%s: %w", card, err).hint("plug it in and try again")
	case is(ErrBusy):
		return refuse(ReasonCardBusy, "%s: %w", card, err).hint("another program (gpg's scdaemon, a browser) keeps the card: gpgconf --kill scdaemon; bastion-agent doctor looks for it")
	case is(errCardTime):
		return refuse(ReasonCardTimeout, "%s: %w", card, errCardTime).hint("plug it out and in; bastion-agent doctor says more")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return refuse(ReasonCardFailed, "%s: interrupted: %w", card, err)
	}
	return refuse(ReasonCardFailed, "%s: %w", card, err).hint("bastion-agent doctor says more")
}
