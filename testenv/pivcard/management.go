package pivcard

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
	"slices"
)

// slotManagement is the management key's reference.
const slotManagement = 0x9B

// management is the key that administrates the card.
type management struct {
	Algorithm byte        `json:"algorithm"`
	Key       []byte      `json:"key"`
	Touch     TouchPolicy `json:"touch"`
}

// defaultManagementKey is Yubico's, of every firmware; its algorithm became AES-192 with 5.7.
var defaultManagementKey = bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 3)

// managementLengths are the lengths of keys (SP 800-78-4, table 5-2), of which the firmware has 3DES alone below 5.4.
var managementLengths = map[byte]int{algorithm3DES: 24, algorithmAES128: 16, algorithmAES192: 24, algorithmAES256: 32}

func (m management) block() cipher.Block {
	var b cipher.Block
	var err error
	if m.Algorithm == algorithm3DES {
		b, err = des.NewTripleDESCipher(m.Key)
	} else {
		b, err = aes.NewCipher(m.Key)
	}
	if err != nil {
		panic("pivcard: internal error: " + err.Error()) // lengths are checked when a key is set or loaded
	}
	return b
}

// challenge is the first half of an authentication; the second half uses it up.
type challenge struct {
	witness bool // the card gave it encrypted and wants it plain (mutual authentication); otherwise the other way round
	plain   []byte
}

// Tags of the dynamic authentication template (SP 800-73-4 part 2, table 7).
const (
	tagTemplate       = 0x7C
	tagWitness        = 0x80
	tagChallenge      = 0x81
	tagResponse       = 0x82
	tagExponentiation = 0x85
)

// authenticateManagement is GENERAL AUTHENTICATE with the management key, single or mutual (SP 800-73-4 part 2, annexes A.1 and A.2).
func (c *Card) authenticateManagement(ctx context.Context, cmd apdu) ([]byte, Status) {
	m := c.state.Management
	if cmd.p1 != m.Algorithm && (cmd.p1 != 0 || m.Algorithm != algorithm3DES) { // 0 is 3DES as well
		return nil, statusData
	}
	f, rest, ok := next(cmd.data)
	if !ok || f.tag != tagTemplate || len(rest) != 0 {
		return nil, statusData
	}
	parts, ok := fields(f.value)
	if !ok {
		return nil, statusData
	}
	given := c.session.challenge
	c.session.challenge = challenge{}
	block := m.block()
	size := block.BlockSize()
	witness, hasWitness := parts[tagWitness]
	asked, hasChallenge := parts[tagChallenge]
	response, hasResponse := parts[tagResponse]
	switch {
	case hasWitness && len(witness) == 0 && !hasChallenge:
		plain, secret := make([]byte, size), make([]byte, size)
		rand.Read(plain)
		block.Encrypt(secret, plain)
		c.session.challenge = challenge{witness: true, plain: plain}
		return tlv(tagTemplate, tlv(tagWitness, secret)), statusOK
	case hasChallenge && len(asked) == 0 && !hasWitness:
		plain := make([]byte, size)
		rand.Read(plain)
		c.session.challenge = challenge{plain: plain}
		return tlv(tagTemplate, tlv(tagChallenge, plain)), statusOK
	case hasWitness && hasChallenge && len(asked) == size:
		if !given.witness || subtle.ConstantTimeCompare(witness, given.plain) != 1 || !c.touched(ctx, m.Touch) {
			return nil, statusSecurity
		}
		c.session.management = true
		out := make([]byte, size)
		block.Encrypt(out, asked)
		return tlv(tagTemplate, tlv(tagResponse, out)), statusOK
	case hasResponse && len(response) > 0 && !hasWitness && !hasChallenge:
		want := make([]byte, size)
		if given.plain == nil || given.witness {
			return nil, statusSecurity
		}
		block.Encrypt(want, given.plain)
		if subtle.ConstantTimeCompare(response, want) != 1 || !c.touched(ctx, m.Touch) {
			return nil, statusSecurity
		}
		c.session.management = true
		return nil, statusOK
	}
	return nil, statusData
}

// setManagement is Yubico's SET MANAGEMENT KEY.
func (c *Card) setManagement(cmd apdu) Status {
	touch := map[byte]TouchPolicy{0xFF: TouchNever, 0xFE: TouchAlways, 0xFD: TouchCached}[cmd.p2]
	if cmd.p1 != 0xFF || touch == 0 {
		return statusParameters
	}
	if !c.session.management {
		return statusSecurity
	}
	if len(cmd.data) < 3 || cmd.data[1] != slotManagement || int(cmd.data[2]) != len(cmd.data)-3 {
		return statusData
	}
	algorithm, key := cmd.data[0], cmd.data[3:]
	if managementLengths[algorithm] != len(key) || algorithm != algorithm3DES && !c.state.Firmware.has(firmwareAES) {
		return statusData
	}
	if algorithm == algorithm3DES && weak(key) {
		return statusData
	}
	c.state.Management = management{Algorithm: algorithm, Key: slices.Clone(key), Touch: touch}
	c.dirty = true
	return statusOK
}

// weakDES are the weak and half-weak keys of DES, without parity bits.
var weakDES = [][]byte{
	{0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00}, {0xFE, 0xFE, 0xFE, 0xFE, 0xFE, 0xFE, 0xFE, 0xFE},
	{0x1E, 0x1E, 0x1E, 0x1E, 0x0E, 0x0E, 0x0E, 0x0E}, {0xE0, 0xE0, 0xE0, 0xE0, 0xF0, 0xF0, 0xF0, 0xF0},
	{0x00, 0xFE, 0x00, 0xFE, 0x00, 0xFE, 0x00, 0xFE}, {0xFE, 0x00, 0xFE, 0x00, 0xFE, 0x00, 0xFE, 0x00},
	{0x1E, 0xE0, 0x1E, 0xE0, 0x0E, 0xF0, 0x0E, 0xF0}, {0xE0, 0x1E, 0xE0, 0x1E, 0xF0, 0x0E, 0xF0, 0x0E},
	{0x00, 0xE0, 0x00, 0xE0, 0x00, 0xF0, 0x00, 0xF0}, {0xE0, 0x00, 0xE0, 0x00, 0xF0, 0x00, 0xF0, 0x00},
	{0x1E, 0xFE, 0x1E, 0xFE, 0x0E, 0xFE, 0x0E, 0xFE}, {0xFE, 0x1E, 0xFE, 0x1E, 0xFE, 0x0E, 0xFE, 0x0E},
	{0x00, 0x1E, 0x00, 0x1E, 0x00, 0x0E, 0x00, 0x0E}, {0x1E, 0x00, 0x1E, 0x00, 0x0E, 0x00, 0x0E, 0x00},
	{0xE0, 0xFE, 0xE0, 0xFE, 0xF0, 0xFE, 0xF0, 0xFE}, {0xFE, 0xE0, 0xFE, 0xE0, 0xFE, 0xF0, 0xFE, 0xF0},
}

func weak(key []byte) bool {
	for part := range slices.Chunk(key, des.BlockSize) {
		bare := slices.Clone(part)
		for i := range bare {
			bare[i] &^= 1
		}
		if slices.ContainsFunc(weakDES, func(w []byte) bool { return bytes.Equal(w, bare) }) {
			return true
		}
	}
	return false
}
