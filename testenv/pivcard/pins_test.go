package pivcard

import (
	"bytes"
	"slices"
	"testing"
)

// PIN and PUK block for good, over power cycles and a file; only the reset helps, and it takes everything but the attestation key.
func TestBlocksForGood(t *testing.T) {
	path := t.TempDir() + "/card.json"
	c := newCard(t, fw574)
	if err := c.card.KeepIn(path); err != nil {
		t.Fatal(err)
	}
	again := func() {
		t.Helper()
		card, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		c.card = card
		c.must(0xA4, 4, 0, aidPIV)
	}
	c.administrator()
	c.generate(0x11, 0x9A, 2, 2)
	for _, want := range []Status{0x63C2, 0x63C1, 0x63C0, 0x6983, 0x6983} {
		if sw := c.pin("000000"); sw != want {
			t.Errorf("wrong PIN: got %04x, want %04x", uint16(sw), uint16(want))
		}
		again() // a power cut does not give a try back
	}
	if sw := c.pin(DefaultPIN); sw != statusBlocked {
		t.Errorf("right PIN of a blocked card: got %04x, want 6983", uint16(sw))
	}
	wrong := append(padded("99999999"), padded("654321")...)
	c.must(0x2C, 0, 0x80, append(padded(DefaultPUK), padded("654321")...)) // the PUK unblocks it
	if sw := c.pin("654321"); sw != statusOK {
		t.Errorf("new PIN: got %04x", uint16(sw))
	}
	for range defaultTries {
		c.pin("000000")
	}
	for _, want := range []Status{0x63C2, 0x63C1, 0x63C0, 0x6983} {
		c.refused(want, 0x2C, 0, 0x80, wrong)
		again()
	}
	c.refused(statusBlocked, 0x2C, 0, 0x80, append(padded(DefaultPUK), padded("654321")...))
	device := c.must(0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xFF, 0x01})
	c.must(0xFB, 0, 0, nil)
	again()
	if sw := c.pin(DefaultPIN); sw != statusOK {
		t.Errorf("PIN after a reset: got %04x", uint16(sw))
	}
	c.refused(statusReference, 0xF7, 0, 0x9A, nil)
	if got := c.must(0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xFF, 0x01}); !bytes.Equal(got, device) {
		t.Error("the reset took the attestation certificate")
	}
	c.administrator()
	c.generate(0x11, 0x9A, 2, 2)
	c.must(0xF9, 0x9A, 0, nil)
}

// A right PIN gives the tries back, and a wrong one ends the session's.
func TestPINSession(t *testing.T) {
	c := newCard(t, fw574)
	c.pin("000000")
	if sw := c.pin(DefaultPIN); sw != statusOK {
		t.Fatalf("PIN: got %04x", uint16(sw))
	}
	c.must(0x20, 0, 0x80, nil)
	if sw := c.pin("000000"); sw != 0x63C2 {
		t.Errorf("wrong PIN after a right one: got %04x, want 63c2", uint16(sw))
	}
	c.refused(0x63C2, 0x20, 0, 0x80, nil)
	c.pin(DefaultPIN)
	c.card.Reset()
	c.must(0xA4, 4, 0, aidPIV)
	c.refused(0x63C3, 0x20, 0, 0x80, nil)
}

func TestChange(t *testing.T) {
	c := newCard(t, fw574)
	c.must(0x24, 0, 0x80, append(padded(DefaultPIN), padded("abcdefgh")...))
	c.must(0x24, 0, 0x81, append(padded(DefaultPUK), padded("876543")...))
	if sw := c.pin("abcdefgh"); sw != statusOK {
		t.Errorf("new PIN: got %04x", uint16(sw))
	}
	c.must(0x2C, 0, 0x80, append(padded("876543"), padded("111111")...))
	if sw := c.pin("111111"); sw != statusOK {
		t.Errorf("PIN by the new PUK: got %04x", uint16(sw))
	}
	c = newCard(t, fw543)
	c.must(0x24, 0, 0x81, append(padded(DefaultPUK), "\x801234567"...)) // any byte below 5.7
}

func TestSetRetries(t *testing.T) {
	c := newCard(t, fw574)
	c.must(0x24, 0, 0x80, append(padded(DefaultPIN), padded("654321")...))
	c.administrator()
	c.pin("654321")
	c.must(0xFA, 20, 5, nil)
	c.refused(0x63CF, 0x20, 0, 0x80, nil) // 20 do not fit into four bits
	if got := c.must(0xF7, 0, 0x80, nil); !bytes.Equal(got, []byte{1, 1, 0xFF, 5, 1, 1, 6, 2, 20, 20}) {
		t.Errorf("metadata of the PIN: got % x, want the default PIN and 20 tries", got)
	}
	c.pin("000000")
	if got := c.must(0xF7, 0, 0x80, nil); !bytes.Equal(got, []byte{1, 1, 0xFF, 5, 1, 1, 6, 2, 20, 19}) {
		t.Errorf("metadata of the PIN: got % x", got)
	}
	if got := c.must(0xF7, 0, 0x81, nil); !bytes.Equal(got, []byte{1, 1, 0xFF, 5, 1, 1, 6, 2, 5, 5}) {
		t.Errorf("metadata of the PUK: got % x", got)
	}
}

func TestManagementKey(t *testing.T) {
	for _, tt := range []struct {
		firmware  Firmware
		algorithm byte
		size      int
	}{{fw435, 0x03, 24}, {fw543, 0x03, 24}, {fw543, 0x08, 16}, {fw543, 0x0A, 24}, {fw574, 0x0C, 32}, {fw574, 0x03, 24}} {
		c := newCard(t, tt.firmware)
		standard := byte(0x03)
		if tt.firmware.has(firmwareMove) {
			standard = 0x0A
		}
		if sw := c.manage(standard, bytes.Repeat([]byte{1}, 24)); sw != statusSecurity {
			t.Errorf("%s: wrong key: got %04x, want 6982", tt.firmware, uint16(sw))
		}
		if sw := c.manage(standard, defaultManagementKey); sw != statusOK {
			t.Fatalf("%s: default key: got %04x", tt.firmware, uint16(sw))
		}
		key := make([]byte, tt.size)
		for i := range key {
			key[i] = byte(3*i + 1)
		}
		c.must(0xFF, 0xFF, 0xFF, append([]byte{tt.algorithm, 0x9B, byte(tt.size)}, key...))
		c.must(0xA4, 4, 0, aidPIV)
		c.refused(statusSecurity, 0x47, 0, 0x9A, []byte{0xAC, 3, 0x80, 1, 0x11})
		if sw := c.manage(tt.algorithm, key); sw != statusOK {
			t.Errorf("%s: new key of algorithm %02x: got %04x", tt.firmware, tt.algorithm, uint16(sw))
		}
		if tt.firmware.has(firmwareMetadata) {
			if got := c.must(0xF7, 0, 0x9B, nil); !bytes.Equal(got, []byte{1, 1, tt.algorithm, 2, 2, 0, 1, 5, 1, 0}) {
				t.Errorf("%s: metadata: got % x", tt.firmware, got)
			}
		}
	}
}

// Single authentication: the card gives a challenge, the program encrypts it. A challenge is good for one answer.
func TestSingleAuthentication(t *testing.T) {
	c := newCard(t, fw543)
	block := cipherOf(t, 0x03, defaultManagementKey)
	ask := func() []byte {
		out := c.must(0x87, 0x03, 0x9B, []byte{0x7C, 2, 0x81, 0})
		if !bytes.Equal(out[:4], []byte{0x7C, 10, 0x81, 8}) {
			t.Fatalf("challenge: got % x", out)
		}
		answer := make([]byte, 8)
		block.Encrypt(answer, out[4:])
		return append([]byte{0x7C, 10, 0x82, 8}, answer...)
	}
	response := ask()
	wrong := slices.Clone(response)
	wrong[5] ^= 1
	c.refused(statusSecurity, 0x87, 0x03, 0x9B, wrong)
	c.refused(statusSecurity, 0x87, 0x03, 0x9B, response)
	c.refused(statusSecurity, 0x47, 0, 0x9A, []byte{0xAC, 3, 0x80, 1, 0x11})
	c.must(0x87, 0x00, 0x9B, ask()) // algorithm 0 is 3DES as well
	c.generate(0x11, 0x9A, 1, 1)
}

// The management key can want a touch of its own.
func TestManagementTouch(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	c.must(0xFF, 0xFF, 0xFE, append([]byte{0x0A, 0x9B, 24}, defaultManagementKey...))
	c.must(0xA4, 4, 0, aidPIV)
	c.card.Touch.SetMode(TouchRefused)
	if sw := c.manage(0x0A, defaultManagementKey); sw != statusSecurity {
		t.Errorf("without touch: got %04x, want 6982", uint16(sw))
	}
	c.card.Touch.SetMode(TouchAuto)
	if sw := c.manage(0x0A, defaultManagementKey); sw != statusOK {
		t.Errorf("with touch: got %04x", uint16(sw))
	}
	if got := c.card.Touch.State(); got.Asked != 2 || got.Given != 1 || got.Refused != 1 {
		t.Errorf("touches: got %+v", got)
	}
}
