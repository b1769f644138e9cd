package policies

import (
	"fmt"

	"mayfly/bastion/hardkey"
)

// Reason says why something was refused, in one word that logs and tests share. The zero value is a refusal too.
type Reason string

const (
	Allowed          Reason = "allowed"
	PolicyExpired    Reason = "policy_expired"
	AddressNotListed Reason = "address_not_listed"
	UserRoot         Reason = "user_root"
	UserReserved     Reason = "user_reserved" // an account that a system has for itself
	UserUnknown      Reason = "user_unknown"
	KeyUnknown       Reason = "key_unknown"      // a hardware key type, not enrolled for this user
	KeyNotHardware   Reason = "key_not_hardware" // a key type that any software can hold
	KeyNoEvidence    Reason = "key_no_evidence"
	KeyRevoked       Reason = "key_revoked" // on the revocation list

	KeyNoUserVerification Reason = "key_no_user_verification" // PIN or biometry is asked for, and not proven

	KeyCardShared Reason = "key_card_shared" // the PIV card is somebody else's already

	// The evidence of an enrolled key is rejected: package bastion/hardkey says why.
	AttestationMissing          Reason = hardkey.Missing
	AttestationMalformed        Reason = hardkey.Malformed
	AttestationChain            Reason = hardkey.Chain
	AttestationOtherApplet      Reason = hardkey.OtherApplet
	AttestationKeyDiffers       Reason = hardkey.KeyDiffers
	AttestationKeyType          Reason = hardkey.KeyType
	AttestationExtensionMissing Reason = hardkey.ExtensionMissing
	AttestationSlot             Reason = hardkey.Slot
	AttestationImported         Reason = hardkey.Imported
	AttestationTouchNever       Reason = hardkey.TouchNever
	AttestationTouchCached      Reason = hardkey.TouchCached
	AttestationPINPolicy        Reason = hardkey.PINPolicy
	AttestationFirmware         Reason = hardkey.Firmware
	AttestationSerialDenied     Reason = hardkey.SerialDenied
	AttestationSerialNotListed  Reason = hardkey.SerialNotListed
	AttestationExpired          Reason = hardkey.Expired
	AttestationChallenge        Reason = hardkey.ChallengeDiffers
	AttestationSignature        Reason = hardkey.Signature
	AttestationAAGUID           Reason = hardkey.AAGUID
	AttestationRelyingParty     Reason = hardkey.RelyingParty
	AttestationFlags            Reason = hardkey.Flags
	AttestationCredProtect      Reason = hardkey.CredProtect
	AttestationTest             Reason = hardkey.TestIssuer
	AttestationSynced           Reason = hardkey.Synced
	AttestationBadRules         Reason = hardkey.BadRules
	AttestationKind             Reason = hardkey.Kind

	CertificateAuthorityUnknown Reason = "certificate_authority_unknown" // not signed by a listed authority
	CertificateType             Reason = "certificate_type"              // a host's
	CertificatePrincipal        Reason = "certificate_principal"         // not for this user, or for whoever
	CertificateOption           Reason = "certificate_option"            // one that is not known, or that waives touch
	CertificateSource           Reason = "certificate_source"            // not for this address, or for every one
	CertificateLifetime         Reason = "certificate_lifetime"          // for ever, or longer than the policy allows
	CertificateEarly            Reason = "certificate_early"
	CertificateExpired          Reason = "certificate_expired"
	CertificateRevoked          Reason = "certificate_revoked"
	CertificateKeyUnknown       Reason = "certificate_key_unknown" // its key is not enrolled for this user

	TargetUnknown     Reason = "target_unknown"
	TargetNotGranted  Reason = "target_not_granted"
	PortNotGranted    Reason = "port_not_granted"
	SessionOnly       Reason = "session_only"        // granted for recorded sessions, not for jumps
	SessionNotGranted Reason = "session_not_granted" // granted for jumps, not for recorded sessions
	RobotNotToVPN     Reason = "robot_not_to_vpn"    // a robot goes to hosts only
	OutsideWindow     Reason = "outside_window"      // granted, but not at this time of the week
	ApprovalMissing   Reason = "approval_missing"    // the grant asks for another engineer's approval
	ApprovalEarly     Reason = "approval_early"      // it is not in force yet
	ApprovalExpired   Reason = "approval_expired"    // it is in force no more
	ApprovalOwn       Reason = "approval_own"        // by the person it is for
	ServerNotDrained  Reason = "server_not_drained"  // the grant opens servers only without traffic
	BreakGlassSealed  Reason = "break_glass_sealed"  // a break-glass identity without an opening
)

// Reasons are all of them, for who counts by reason. A test holds the list to the constants.
var Reasons = []Reason{
	Allowed, PolicyExpired, AddressNotListed, UserRoot, UserReserved, UserUnknown, KeyUnknown,
	KeyNotHardware, KeyNoEvidence, KeyRevoked, KeyNoUserVerification, KeyCardShared,
	AttestationMissing, AttestationMalformed, AttestationChain, AttestationOtherApplet, AttestationKeyDiffers, AttestationKeyType,
	AttestationExtensionMissing, AttestationSlot, AttestationImported, AttestationTouchNever, AttestationTouchCached, AttestationPINPolicy,
	AttestationFirmware, AttestationSerialDenied, AttestationSerialNotListed, AttestationExpired, AttestationChallenge, AttestationSignature,
	AttestationAAGUID, AttestationRelyingParty, AttestationFlags, AttestationCredProtect, AttestationTest, AttestationSynced, AttestationBadRules, AttestationKind,
	CertificateAuthorityUnknown, CertificateType, CertificatePrincipal,
	CertificateOption, CertificateSource, CertificateLifetime, CertificateEarly, CertificateExpired, CertificateRevoked, CertificateKeyUnknown,
	TargetUnknown, TargetNotGranted, PortNotGranted, SessionOnly, SessionNotGranted, RobotNotToVPN, OutsideWindow,
	ApprovalMissing, ApprovalEarly, ApprovalExpired, ApprovalOwn, ServerNotDrained, BreakGlassSealed,
}

// Kind is what somebody who logs in is. Every audit record shows it as identity.
type Kind string

const (
	KindEngineer   Kind = "engineer"    // a person with a touched hardware key
	KindRobot      Kind = "robot"       // automation: no touch, one source, listed commands
	KindBreakGlass Kind = "break_glass" // an opening that several people signed
)

// Verdict is a decision. Its zero value denies.
type Verdict struct {
	Allow  bool
	Reason Reason
	Kind   Kind   // of the user that was asked for, also when it is refused; empty: nobody of that name
	Detail string // for the audit log, never for the client
	Basis  Basis  // of an allowance
}

func deny(r Reason, format string, args ...any) Verdict {
	return Verdict{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// as says of what kind the user is that the verdict is about.
func (v Verdict) as(k Kind) Verdict {
	v.Kind = k
	return v
}

func allow(format string, args ...any) Verdict {
	return Verdict{Allow: true, Reason: Allowed, Detail: fmt.Sprintf(format, args...)}
}
