package policies

import "fmt"

// Reason says why something was refused, in one word that logs and tests share. The zero value is a refusal too.
type Reason string

const (
	Allowed          Reason = "allowed"
	PolicyExpired    Reason = "policy_expired"
	AddressNotListed Reason = "address_not_listed"
	UserRoot         Reason = "user_root"
	UserUnknown      Reason = "user_unknown"
	KeyUnknown       Reason = "key_unknown"      // a hardware key type, not enrolled for this user
	KeyNotHardware   Reason = "key_not_hardware" // a key type that any software can hold
	KeyNoEvidence    Reason = "key_no_evidence"
	TargetUnknown    Reason = "target_unknown"
	TargetNotGranted Reason = "target_not_granted"
	PortNotGranted   Reason = "port_not_granted"
)

// Verdict is a decision. Its zero value denies.
type Verdict struct {
	Allow  bool
	Reason Reason
	Detail string // for the audit log, never for the client
}

func deny(r Reason, format string, args ...any) Verdict {
	return Verdict{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

func allow(format string, args ...any) Verdict {
	return Verdict{Allow: true, Reason: Allowed, Detail: fmt.Sprintf(format, args...)}
}
