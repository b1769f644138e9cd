//go:build pcsc

package cardpeers

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/testenv/pivcard"
)

const (
	fleet  = "test"
	person = "alice"
	// namespace of the signature over a challenge: docs/formats/enrolment.md
	namespace = "mayfly-enrolment"
)

// certify makes a certificate over a card's key, as a site's own authority would.
func (d *desk) certify(public crypto.PublicKey) *x509.Certificate {
	d.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	name := pkix.Name{CommonName: "TEST software authority"}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: person}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}, &x509.Certificate{Subject: name}, public, key)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.parse(der)
}

// parse reads a certificate, PEM or DER.
func (d *desk) parse(data []byte) *x509.Certificate {
	d.t.Helper()
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		d.t.Fatalf("certificate: %v", err)
	}
	return cert
}

// publicKey reads a public key, PEM or DER.
func (d *desk) publicKey(data []byte) crypto.PublicKey {
	d.t.Helper()
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	key, err := x509.ParsePKIXPublicKey(data)
	if err != nil {
		d.t.Fatalf("public key: %v", err)
	}
	return key
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// openssl holds an attestation to the maker's roots with a program of others.
func (d *desk) openssl(slot, device *x509.Certificate) {
	d.t.Helper()
	maker, err := issuer()
	if err != nil {
		d.t.Fatal(err)
	}
	roots := d.write("roots.pem", slices.Concat(maker.PIVRoot.PEM(), maker.Root.PEM()))
	between := d.write("between.pem", slices.Concat(pemOf("CERTIFICATE", device.Raw), maker.PIV.PEM(), maker.Intermediate.PEM()))
	d.must(d.run("openssl", "verify", "-CAfile", roots, "-untrusted", between, d.write("slot.pem", pemOf("CERTIFICATE", slot.Raw))), "OK")
	foreign, err := foreigner()
	if err != nil {
		d.t.Fatal(err)
	}
	d.mustNot(d.run("openssl", "verify", "-CAfile", d.write("foreign.pem", slices.Concat(foreign.PIVRoot.PEM(), foreign.Root.PEM())),
		"-untrusted", between, d.path("slot.pem")), "verification failed")
}

// challenge is one that a fleet makes.
func (d *desk) challenge() hardkey.Challenge {
	var nonce [hardkey.NonceBytes]byte
	rand.Read(nonce[:])
	return hardkey.NewChallenge(fleet, person, nonce, time.Now())
}

// enrol holds what a program showed to what the bastion asks for, and then to a maker that nobody listed.
func (d *desk) enrol(public ssh.PublicKey, c hardkey.Challenge, signature []byte, slot, device *x509.Certificate) {
	d.t.Helper()
	maker, err := issuer()
	if err != nil {
		d.t.Fatal(err)
	}
	foreign, err := foreigner()
	if err != nil {
		d.t.Fatal(err)
	}
	shown := hardkey.Shown{
		Kind: hardkey.KindPIV, Challenge: c.String(), Signature: base64.StdEncoding.EncodeToString(signature),
		Attestation: []string{base64.StdEncoding.EncodeToString(slot.Raw), base64.StdEncoding.EncodeToString(device.Raw)},
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	rules := hardkey.Rules{Test: true, MinFirmware: "5.0.0", TestIssuers: listed(maker)}
	proof, rejection := hardkey.Verify(fleet, person, line, shown, rules, time.Now())
	if rejection != nil {
		d.t.Fatalf("refused: %s: %s", rejection.Reason, rejection.Text)
	}
	if proof.Serial != d.card.Serial() || proof.Firmware != d.card.Firmware().String() || !proof.Touch || !proof.Test || proof.Slot != "9a" {
		d.t.Errorf("got proof %+v, want the card %d, firmware %s, slot 9a, with touch, as a test", proof, d.card.Serial(), d.card.Firmware())
	}
	rules.TestIssuers = listed(foreign)
	if _, rejection := hardkey.Verify(fleet, person, line, shown, rules, time.Now()); rejection == nil || rejection.Reason != hardkey.Chain {
		d.t.Errorf("another maker's roots: got %v, want %s", rejection, hardkey.Chain)
	}
}

func listed(maker *pivcard.Issuer) (issuers []hardkey.Issuer) {
	for _, i := range maker.DeviceIssuers() {
		issuers = append(issuers, hardkey.Issuer{Name: i.Name, Applet: i.Applet, Certificate: i.Certificate})
	}
	return issuers
}

// verifies holds a signature over the SHA-256 digest of data to a key.
func (d *desk) verifies(public crypto.PublicKey, data, signature []byte) {
	d.t.Helper()
	key, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		d.t.Fatal(err)
	}
	d.must(d.run("openssl", "dgst", "-sha256", "-verify", d.write("verify.pem", pemOf("PUBLIC KEY", key)),
		"-signature", d.write("verify.sig", signature), d.write("verify.data", data)), "Verified OK")
	d.mustNot(d.run("openssl", "dgst", "-sha256", "-verify", d.path("verify.pem"), "-signature", d.path("verify.sig"),
		d.write("other.data", append(bytes.Clone(data), '.'))), "Verification failure")
}
