package pivcard

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// TestThinWay is what every program does: select, version, serial, PIN, generate, sign, attest.
func TestThinWay(t *testing.T) {
	c := newCard(t, fw574)
	if got := c.must(0xFD, 0, 0, nil); !bytes.Equal(got, []byte{5, 7, 4}) {
		t.Errorf("version: got % x", got)
	}
	if got := c.must(0xF8, 0, 0, nil); len(got) != 4 || binary.BigEndian.Uint32(got) != c.card.Serial() {
		t.Errorf("serial: got % x", got)
	}
	c.administrator()
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), c.generate(0x11, 0x9A, 2, 2)[2:])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.card.Touch.SetMode(TouchAuto); err != nil {
		t.Fatal(err)
	}
	digest := bytes.Repeat([]byte{0x5A}, 32)
	if _, sw := c.sign(0x11, 0x9A, digest); sw != statusSecurity {
		t.Errorf("without PIN: got %04x, want 6982", uint16(sw))
	}
	if got := c.card.Touch.State(); got.Asked != 0 {
		t.Errorf("touches without PIN: got %+v, want none asked", got)
	}
	if sw := c.pin(DefaultPIN); sw != statusOK {
		t.Fatalf("PIN: got %04x", uint16(sw))
	}
	signature, sw := c.sign(0x11, 0x9A, digest)
	if sw != statusOK || !ecdsa.VerifyASN1(public, digest, signature) {
		t.Errorf("signature: got %04x, % x", uint16(sw), signature)
	}
	if got := c.card.Touch.State(); got.Asked != 1 || got.Given != 1 {
		t.Errorf("touches: got %+v, want one asked and given", got)
	}
	cert, err := x509.ParseCertificate(c.must(0xF9, 0x9A, 0, nil))
	if err != nil {
		t.Fatal(err)
	}
	if !public.Equal(cert.PublicKey) || cert.Subject.CommonName != "YubiKey PIV Attestation 9a" {
		t.Errorf("attestation: got %s and another key: %v", cert.Subject, !public.Equal(cert.PublicKey))
	}
}

func TestSelect(t *testing.T) {
	c := newCard(t, fw574)
	want := []byte{0x61, 0x11, 0x4F, 0x06, 0, 0, 0x10, 0, 1, 0, 0x79, 0x07, 0x4F, 0x05, 0xA0, 0, 0, 3, 8}
	for n := shortestAID; n <= len(aidPIV); n++ {
		if got := c.must(0xA4, 4, 0, aidPIV[:n]); !bytes.Equal(got, want) {
			t.Errorf("% x: got % x, want % x", aidPIV[:n], got, want)
		}
	}
	c.pin(DefaultPIN)
	c.refused(statusNotFound, 0xA4, 4, 0, []byte{0xA0, 0, 0, 6, 0x47, 0x2F, 0, 1})
	c.must(0x20, 0, 0x80, nil) // what cannot be selected ends nothing
	c.must(0xA4, 4, 0, aidPIV)
	c.refused(0x63C3, 0x20, 0, 0x80, nil) // selecting again does
}

func TestManagementApplet(t *testing.T) {
	c := newCard(t, fw574)
	if got := string(c.must(0xA4, 4, 0, aidManagement)); got != "Virtual mgr - FW version 5.7.4" {
		t.Errorf("select: got %q", got)
	}
	out := c.must(0x1D, 0, 0, nil)
	all, ok := fields(out[1:])
	if !ok || int(out[0]) != len(out)-1 || !bytes.Equal(all[4], []byte{formFactorKeychain}) || !bytes.Equal(all[5], []byte{5, 7, 4}) ||
		binary.BigEndian.Uint32(all[2]) != c.card.Serial() || !bytes.Equal(all[1], []byte{capabilityPIV}) {
		t.Errorf("configuration: got % x", out)
	}
	if got := c.must(0x1D, 1, 0, nil); !bytes.Equal(got, []byte{0}) {
		t.Errorf("next page: got % x, want none", got)
	}
}

// Below 5 programs ask the OTP applet for the serial number.
func TestOTPApplet(t *testing.T) {
	c := newCard(t, fw435)
	c.must(0xA4, 4, 0, aidOTP)
	if got := c.must(0x01, 0x10, 0, nil); binary.BigEndian.Uint32(got) != c.card.Serial() {
		t.Errorf("serial: got % x", got)
	}
	c.refused(statusInstruction, 0x01, 0x11, 0, nil)
}

// The ATR of every firmware has a right check byte and the words that programs look for.
func TestATR(t *testing.T) {
	for firmware, want := range map[Firmware]string{fw435: "Yubikey4", fw527: "\x57YubiKeyaV", fw574: "\x57YubiKeyaV"} {
		atr := newCard(t, firmware).card.ATR()
		var check byte
		for _, b := range atr[1:] {
			check ^= b
		}
		if check != 0 || !strings.HasSuffix(string(atr[:len(atr)-1]), want) || int(atr[1]&0x0F) != len(atr)-10 {
			t.Errorf("%s: got % x, want historical bytes that end in %q", firmware, atr, want)
		}
	}
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{}, "no issuer"},
		{Config{Issuer: issuer(t), Serial: 12345678}, "serial 12345678: want one from 2147000000 to 2147483647"},
		{Config{Issuer: issuer(t), Serial: LastSerial + 1}, "serial"},
		{Config{Issuer: issuer(t), Firmware: Firmware{4, 2, 9}}, "want a version from 4.3.0 to 5.7.255"},
		{Config{Issuer: issuer(t), Firmware: Firmware{6, 0, 0}}, "want a version"},
		{Config{Issuer: issuer(t), Chain: "u2f"}, `chain "u2f"`},
	} {
		if card, err := New(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v and %v, want an error with %q", tt.config, card, err, tt.want)
		}
	}
	card, err := New(Config{Issuer: issuer(t), Serial: FirstSerial})
	if err != nil || card.Serial() != FirstSerial || card.Firmware() != DefaultFirmware {
		t.Errorf("got %v, serial %d, firmware %s", err, card.Serial(), card.Firmware())
	}
}

func TestFirmware(t *testing.T) {
	for _, text := range []string{"4.3.0", "4.3.5", "5.2.7", "5.7.4"} {
		var f Firmware
		if err := f.UnmarshalText([]byte(text)); err != nil || f.String() != text {
			t.Errorf("%s: got %s, %v", text, f, err)
		}
	}
	for _, text := range []string{"", "5.7", "5.7.4.1", "5.7.x", "5.07.4", "5.7.256", "5.-7.4", "4.2.8", "6.0.0"} {
		var f Firmware
		if err := f.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %s, want an error", text, f)
		}
	}
	order := []Firmware{fw435, fw527, fw530, fw543, {5, 7, 0}, fw574}
	for i, a := range order {
		for j, b := range order {
			if a.has(b) != (i >= j) {
				t.Errorf("%s has %s: got %v", a, b, a.has(b))
			}
		}
	}
}

// A command in pieces, an answer in pieces, extended lengths, and a chain that is broken.
func TestChaining(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	value := bytes.Repeat([]byte{0xAB}, 2000)
	object := tlv(0x53, value)
	tag := []byte{0x5C, 3, 0x5F, 0xC1, 0x02}
	c.must(0xDB, 0x3F, 0xFF, append(slices.Clone(tag), object...))
	if got := c.must(0xCB, 0x3F, 0xFF, tag); !bytes.Equal(got, object) {
		t.Errorf("in pieces: got %d bytes, want %d", len(got), len(object))
	}
	if got, sw := c.raw(append(append([]byte{0, 0xCB, 0x3F, 0xFF, 0, 0, 5}, tag...), 0, 0)); sw != statusOK || !bytes.Equal(got, object) {
		t.Errorf("extended: got %04x and %d bytes, want %d", uint16(sw), len(got), len(object))
	}
	if got, sw := c.raw(append([]byte{0, 0xCB, 0x3F, 0xFF, 5}, tag...)); sw != 0x6100 || len(got) != 256 {
		t.Errorf("the first piece: got %04x and %d bytes", uint16(sw), len(got))
	}
	c.must(0xFD, 0, 0, nil) // another command: the rest is gone
	if _, sw := c.raw([]byte{0, 0xC0, 0, 0, 0}); sw != statusConditions {
		t.Errorf("the rest after another command: got %04x, want 6985", uint16(sw))
	}
	if _, sw := c.raw([]byte{0x10, 0xDB, 0x3F, 0xFF, 2, 0x5C, 3}); sw != statusOK {
		t.Errorf("the first of a chain: got %04x", uint16(sw))
	}
	if _, sw := c.raw([]byte{0, 0xFD, 0, 0}); sw != statusLastOfChain {
		t.Errorf("another command in a chain: got %04x, want 6883", uint16(sw))
	}
	c.must(0xFD, 0, 0, nil) // and the chain is over
	piece := append([]byte{0x10, 0xDB, 0x3F, 0xFF, 255}, make([]byte, 255)...)
	sw := statusOK
	for range maxCommand/255 + 1 {
		if sw != statusOK {
			t.Fatalf("before the bound: got %04x", uint16(sw))
		}
		_, sw = c.raw(piece)
	}
	if sw != statusLength {
		t.Errorf("a chain without end: got %04x, want 6700", uint16(sw))
	}
	if got := c.must(0xCB, 0x3F, 0xFF, tag); !bytes.Equal(got, object) {
		t.Error("broken chains changed the object")
	}
}

func TestObjects(t *testing.T) {
	c := newCard(t, fw574)
	if got := c.must(0xCB, 0x3F, 0xFF, []byte{0x5C, 1, 0x7E}); !bytes.Equal(got, discovery) {
		t.Errorf("discovery: got % x", got)
	}
	c.administrator()
	c.must(0xDB, 0x3F, 0xFF, []byte{0x7E, 2, 0x4F, 0}) // discovery has no outer tag
	if got := c.must(0xCB, 0x3F, 0xFF, []byte{0x5C, 1, 0x7E}); !bytes.Equal(got, []byte{0x7E, 2, 0x4F, 0}) {
		t.Errorf("discovery: got % x", got)
	}
	for _, name := range [][]byte{{0x5F, 0xC1, 0x02}, {0x5F, 0xC1, 0x07}, {0x5F, 0xC1, 0x05}, {0x5F, 0xC1, 0x0C}, {0x5F, 0xFF, 0x00}, {0x5F, 0x00, 0x01}} {
		list := append([]byte{0x5C, 3}, name...)
		c.must(0xDB, 0x3F, 0xFF, append(slices.Clone(list), 0x53, 2, 1, 2))
		if got := c.must(0xCB, 0x3F, 0xFF, list); !bytes.Equal(got, []byte{0x53, 2, 1, 2}) {
			t.Errorf("object % x: got % x", name, got)
		}
		c.must(0xDB, 0x3F, 0xFF, append(slices.Clone(list), 0x53, 0))
		c.refused(statusNotFound, 0xCB, 0x3F, 0xFF, list)
	}
	printed := []byte{0x5C, 3, 0x5F, 0xC1, 0x09}
	c.must(0xDB, 0x3F, 0xFF, append(slices.Clone(printed), 0x53, 3, 0x88, 1, 7))
	c.refused(statusSecurity, 0xCB, 0x3F, 0xFF, printed)
	c.pin(DefaultPIN)
	if got := c.must(0xCB, 0x3F, 0xFF, printed); !bytes.Equal(got, []byte{0x53, 3, 0x88, 1, 7}) {
		t.Errorf("printed: got % x", got)
	}
	c.must(0x20, 0xFF, 0x80, nil) // log out
	c.refused(statusSecurity, 0xCB, 0x3F, 0xFF, printed)
}

// A card is full at some time, and stays readable.
func TestFull(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	value := tlv(0x53, make([]byte, maxObject-4))
	stored := 0
	for n := byte(0); ; n++ {
		_, sw := c.send(0xDB, 0x3F, 0xFF, append([]byte{0x5C, 3, 0x5F, 0x10, n}, value...))
		if sw == statusNoSpace {
			break
		}
		if sw != statusOK || n > 100 {
			t.Fatalf("object %d: got %04x", n, uint16(sw))
		}
		stored++
	}
	if want := maxObjects / maxObject; stored != want {
		t.Errorf("got %d objects, want %d beside the attestation certificate, which is small", stored, want)
	}
	c.must(0xDB, 0x3F, 0xFF, append([]byte{0x5C, 3, 0x5F, 0x10, 0}, value...)) // in place of itself
	if got := c.must(0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0x10, 1}); !bytes.Equal(got, value) {
		t.Errorf("got %d bytes", len(got))
	}
}
