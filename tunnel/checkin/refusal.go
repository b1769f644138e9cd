package checkin

import "fmt"

// Reasons why a list or the service is not believed.
const (
	Unreachable = "checkin_unreachable" // no answer, or not the one that was asked for
	Untrusted   = "checkin_untrusted"   // the certificate is not of the fleet's CA or names another
	TooLarge    = "list_too_large"
	Unsigned    = "list_unsigned" // no good signature by a list key
	Malformed   = "list_malformed"
	OtherFleet  = "list_other_fleet"
	Expired     = "list_expired"
	NotYet      = "list_not_yet" // issued in the future
	Older       = "list_older"   // older than one that was seen
)

// Refusal is why a list is not believed. Only Unreachable is worth another try.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string {
	if r.Err == nil {
		return r.Reason
	}
	return fmt.Sprintf("%s: %v", r.Reason, r.Err)
}

func (r *Refusal) Unwrap() error { return r.Err }

// Refused tells command.ExitCode that this is a refusal, not a failure.
func (r *Refusal) Refused() bool { return r.Reason != Unreachable }

func refuse(reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}
