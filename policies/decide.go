package policies

import "net/netip"

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

// Login is somebody who asks to be let in, after proof of possession.
type Login struct {
	Source netip.Addr // unmapped
	User   string
	Key    string // authorized_keys form of the proven public key: "TYPE BASE64"
}

// Target is where an admitted engineer wants to go.
type Target struct {
	Server string
	Port   uint16
}
