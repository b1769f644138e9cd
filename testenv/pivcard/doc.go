// Package pivcard is a virtual YubiKey: the PIV applet with the Yubico extensions, in software, for tests and the demo. Real
// programs speak to it through the real pcscd and the vpcd driver; tests speak to it with bytes.
//
// It proves nothing about hardware and says so: its ATR carries an extra "V", its serial numbers come from a range that no real
// key has, and every certificate of its attestation chain has TEST and software in its name. What it is for is behaviour: what a
// command of a firmware answers, down to the status word, with PIN and touch policies, counters that block for good, and touches that
// come, are refused, or come too late, as the control socket says.
//
// What it does not do: biometrics (the Bio series), FIPS approved mode, secure channels (SCP), NFC, attestation of X25519 keys (crypto/x509 makes
// no certificate of one), any other applet but the little of the management applet (and below firmware 5 the OTP applet) that PIV programs ask.
//
// Sources: NIST SP 800-73-4 part 2 (commands), SP 800-78-4 (algorithms), Yubico's documentation of its PIV extensions, ISO/IEC 7816-4
// (APDUs, chaining), and for each status word the table in status_test.go.
//
// Files in order: status.go and apdu.go (bytes), tlv.go, firmware.go (what a version has), card.go (the card and its commands),
// chaining.go, objects.go, pins.go, management.go, keys.go, privatekey.go, authenticate.go, metadata.go, touch.go, attest.go and issuer.go
// (the chain), outside.go (what is seen and done without commands), state.go (the file), vpcd.go and quick.go (the wire), reader.go (in and
// out of it), control.go (the control socket), verbs.go.
package pivcard
