package pivcard

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"testing"
)

// The thin way: select, version, serial, PIN, generate, sign, attest.
func TestThinWay(t *testing.T) {
	c := newCard(t, Firmware{5, 7, 4})
	if got := c.must(0xFD, 0, 0, nil); !bytes.Equal(got, []byte{5, 7, 4}) {
		t.Errorf("version: got % x", got)
	}
	if got := c.must(0xF8, 0, 0, nil); len(got) != 4 || got[0] != 0x7F {
		t.Errorf("serial: got % x", got)
	}
	c.administrator()
	out := c.must(0x47, 0, 0x9A, []byte{0xAC, 0x09, 0x80, 0x01, 0x11, 0xAA, 0x01, 0x02, 0xAB, 0x01, 0x02})
	if !bytes.HasPrefix(out, []byte{0x7F, 0x49, 0x43, 0x86, 0x41, 0x04}) {
		t.Fatalf("public key: got % x", out)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), out[5:])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.card.Touch.SetMode(TouchAuto); err != nil {
		t.Fatal(err)
	}
	digest := bytes.Repeat([]byte{0x5A}, 32)
	template := append([]byte{0x7C, 0x24, 0x82, 0x00, 0x81, 0x20}, digest...)
	c.refused(statusSecurity, 0x87, 0x11, 0x9A, template)
	if sw := c.pin(DefaultPIN); sw != statusOK {
		t.Fatalf("PIN: got %04x", uint16(sw))
	}
	signature := c.must(0x87, 0x11, 0x9A, template)
	if !ecdsa.VerifyASN1(public, digest, signature[4:]) {
		t.Errorf("the signature % x does not fit", signature)
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
