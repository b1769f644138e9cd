// Package hardkey is proof that a key lives in hardware: PIV attestation and FIDO2 attestation, verified against what a fleet
// asks of keys (docs/formats/evidence.md).
//
// It does no I/O, never reads the clock, and says nothing about who may log in. It does not know revocation lists, and it cannot
// see what a device does that lies: it believes the makers whose certificates are built in or listed in the policy.
//
// Reading order: hardkey.go (what is shown, asked and proved; Verify), challenge.go, key.go, rules.go, issuers.go,
// certificate.go and extensions.go, piv.go, fido2.go, authdata.go and cbor.go, base64.go, rejection.go.
//
// No chain is built. Each form has the certificates that it has, in their order, and each is held against exactly the one that
// must have signed it: whoever may sign a certificate somewhere else in a maker's tree signs nothing here.
//
// References: Yubico, "PIV attestation" and its object identifiers; OpenSSH's PROTOCOL.u2f; W3C Web Authentication Level 2,
// sections 6.1 and 8.2; FIDO CTAP 2.1, section 12.1.
package hardkey
