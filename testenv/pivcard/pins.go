package pivcard

import (
	"bytes"
	"crypto/subtle"
	"slices"
)

// References of the PIN and the PUK (SP 800-73-4 part 1, table 4).
const (
	referencePIN = 0x80
	referencePUK = 0x81
)

// Implementation constants, as a YubiKey has them.
const (
	pinLength    = 8 // with its padding
	pinShortest  = 6
	pinPadding   = 0xFF
	defaultTries = 3
)

// As a YubiKey leaves the factory.
const (
	DefaultPIN = "123456"
	DefaultPUK = "12345678"
)

// secret is a PIN or a PUK with its counter. At no tries left it is blocked for good; a PIN can be unblocked with the PUK, nothing unblocks a PUK.
type secret struct {
	Value []byte `json:"value"`
	Tries int    `json:"tries"`
	Left  int    `json:"left"`
}

func newSecret(value string, tries int) secret {
	return secret{Value: padded(value), Tries: tries, Left: tries}
}

// padded is a PIN as it goes over the wire.
func padded(pin string) []byte {
	return append([]byte(pin), bytes.Repeat([]byte{pinPadding}, max(0, pinLength-len(pin)))...)
}

// check compares, and counts.
func (s *secret) check(value []byte) Status {
	if s.Left == 0 {
		return statusBlocked
	}
	if len(value) == len(s.Value) && subtle.ConstantTimeCompare(value, s.Value) == 1 {
		s.Left = s.Tries
		return statusOK
	}
	s.Left--
	return tries(s.Left)
}

// acceptable says whether a new PIN or PUK may be set: six to eight bytes, then padding, and from 5.7 on no byte above 7F.
func acceptable(value []byte, f Firmware) bool {
	n := bytes.IndexByte(value, pinPadding)
	if n < 0 {
		n = len(value)
	}
	for _, b := range value[n:] {
		if b != pinPadding {
			return false
		}
	}
	if n < pinShortest {
		return false
	}
	return !f.has(firmwareMove) || !slices.ContainsFunc(value[:n], func(b byte) bool { return b > 0x7F })
}

// verify is VERIFY: with a PIN, empty (how many tries are left), or a log-out.
func (c *Card) verify(cmd apdu) Status {
	if cmd.p2 != referencePIN {
		return statusReference
	}
	switch {
	case cmd.p1 == 0xFF && len(cmd.data) == 0:
		c.session.verified, c.session.fresh = false, false
		return statusOK
	case cmd.p1 != 0:
		return statusParameters
	case len(cmd.data) == 0:
		switch {
		case c.session.verified:
			return statusOK
		case c.state.PIN.Left == 0:
			return statusBlocked
		}
		return tries(c.state.PIN.Left)
	case len(cmd.data) != pinLength:
		return statusData
	}
	sw := c.state.PIN.check(cmd.data)
	c.session.verified, c.session.fresh = sw == statusOK, sw == statusOK
	c.dirty = true
	return sw
}

// change is CHANGE REFERENCE DATA.
func (c *Card) change(cmd apdu) Status {
	var s *secret
	switch cmd.p2 {
	case referencePIN:
		s = &c.state.PIN
	case referencePUK:
		s = &c.state.PUK
	}
	if s == nil || cmd.p1 != 0 {
		return statusReference
	}
	return c.replace(s, s, cmd.data)
}

// resetRetry is RESET RETRY COUNTER: a new PIN for the PUK.
func (c *Card) resetRetry(cmd apdu) Status {
	if cmd.p1 != 0 || cmd.p2 != referencePIN {
		return statusReference
	}
	return c.replace(&c.state.PUK, &c.state.PIN, cmd.data)
}

// replace gives target the second half of data if the first half is right for by.
func (c *Card) replace(by, target *secret, data []byte) Status {
	if len(data) != 2*pinLength {
		return statusData
	}
	if by.Left == 0 {
		return statusBlocked
	}
	c.dirty = true
	if sw := by.check(data[:pinLength]); sw != statusOK {
		if target == &c.state.PIN {
			c.session.verified, c.session.fresh = false, false
		}
		return sw
	}
	// After the first half: ykcs11's C_InitToken blocks the PUK by unblocking with a PUK and a PIN that are nothing but padding.
	if !acceptable(data[pinLength:], c.state.Firmware) {
		return statusConditions
	}
	target.Value, target.Left = slices.Clone(data[pinLength:]), target.Tries
	return statusOK
}

// setRetries is Yubico's SET PIN RETRIES. PIN and PUK become the default ones.
func (c *Card) setRetries(cmd apdu) Status {
	if !c.session.management || !c.session.verified {
		return statusSecurity
	}
	if cmd.p1 == 0 || cmd.p2 == 0 {
		return statusData
	}
	c.state.PIN, c.state.PUK = newSecret(DefaultPIN, int(cmd.p1)), newSecret(DefaultPUK, int(cmd.p2))
	c.session.verified, c.session.fresh = false, false
	c.dirty = true
	return statusOK
}

// factoryReset is Yubico's RESET. It needs PIN and PUK blocked, and spares only the attestation key and its certificate.
func (c *Card) factoryReset() Status {
	if c.state.PIN.Left != 0 || c.state.PUK.Left != 0 {
		return statusConditions
	}
	c.state.factory()
	c.session = session{applet: appletPIV}
	c.dirty = true
	return statusOK
}
