package pivcard

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func (c client) attested(slot byte) *x509.Certificate {
	c.t.Helper()
	cert, err := x509.ParseCertificate(c.must(0xF9, slot, 0, nil))
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

func (c client) device() *x509.Certificate {
	c.t.Helper()
	outer, _, _ := next(c.must(0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xFF, 0x01}))
	inner, _, _ := next(outer.value)
	cert, err := x509.ParseCertificate(inner.value)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// The chain of each firmware goes to its root through what it shall, and to no other.
func TestChains(t *testing.T) {
	i := issuer(t)
	for _, tt := range []struct {
		firmware      Firmware
		root, other   *Authority
		intermediates []*x509.Certificate
	}{
		{fw435, i.PIVRoot, i.Root, nil},
		{fw543, i.PIVRoot, i.Root, nil},
		{fw574, i.Root, i.PIVRoot, []*x509.Certificate{i.Intermediate.Certificate, i.PIV.Certificate}},
	} {
		c := newCard(t, tt.firmware)
		c.administrator()
		c.generate(0x11, 0x9A, 2, 2)
		leaf := c.attested(0x9A)
		options := x509.VerifyOptions{
			Roots:         pool(tt.root.Certificate),
			Intermediates: pool(append(tt.intermediates, c.device())...),
			KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}
		chains, err := leaf.Verify(options)
		if err != nil || len(chains) != 1 || len(chains[0]) != 3+len(tt.intermediates) {
			t.Errorf("%s: got %d chains, %v", tt.firmware, len(chains), err)
		}
		options.Roots = pool(tt.other.Certificate)
		if _, err := leaf.Verify(options); err == nil {
			t.Errorf("%s: the chain goes to the other root as well", tt.firmware)
		}
		for _, cert := range append(tt.intermediates, c.device(), tt.root.Certificate) {
			if name := cert.Subject.CommonName; !strings.Contains(name, "TEST") || !strings.Contains(name, "software") {
				t.Errorf("%s: %q does not say that it is a test", tt.firmware, name)
			}
		}
	}
	for name, a := range i.authorities() {
		if (*a).Certificate.Subject.CommonName == "" || !(*a).Certificate.IsCA {
			t.Errorf("%s: got %s", name, (*a).Certificate.Subject)
		}
	}
}

// The bytes are laid out as a YubiKey's: version 3, a UTF8String as the only name, the validity of the device certificate, and only Yubico's four
// extensions in their order; two of them below firmware 5.
func TestAttestationBytes(t *testing.T) {
	for _, tt := range []struct {
		firmware Firmware
		want     []string // extensions: object identifier and value
	}{
		{fw435, []string{"1.3.6.1.4.1.41482.3.3 040305", "1.3.6.1.4.1.41482.3.8 0302"}},
		{fw543, []string{"1.3.6.1.4.1.41482.3.3 050403", "1.3.6.1.4.1.41482.3.7 0204SERIAL", "1.3.6.1.4.1.41482.3.8 0302", "1.3.6.1.4.1.41482.3.9 03"}},
	} {
		c := newCard(t, tt.firmware)
		c.administrator()
		c.generate(0x14, 0x9C, 3, 2)
		cert, device := c.attested(0x9C), c.device()
		var got []string
		for _, e := range cert.Extensions {
			if e.Critical {
				t.Errorf("%s is critical", e.Id)
			}
			got = append(got, fmt.Sprintf("%s %x", e.Id, e.Value))
		}
		for i := range tt.want {
			tt.want[i] = strings.ReplaceAll(tt.want[i], "SERIAL", fmt.Sprintf("%08x", c.card.Serial()))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: extensions: got %q, want %q", tt.firmware, got, tt.want)
		}
		name, err := asn1.Marshal("YubiKey PIV Attestation 9c")
		if err != nil {
			t.Fatal(err)
		}
		name[0] = 0x0C // UTF8String
		if cert.Version != 3 || !bytes.Contains(cert.RawSubject, name) || len(cert.RawSubject) != len(name)+11 {
			t.Errorf("%s: version %d, subject % x", tt.firmware, cert.Version, cert.RawSubject)
		}
		if cert.NotBefore != device.NotBefore || cert.NotAfter != device.NotAfter || !bytes.Equal(cert.RawIssuer, device.RawSubject) {
			t.Errorf("%s: not of the device certificate's validity or name", tt.firmware)
		}
		if cert.SignatureAlgorithm != x509.SHA256WithRSA || device.SignatureAlgorithm != x509.SHA256WithRSA || cert.SerialNumber.BitLen() != 121 {
			t.Errorf("%s: got %s and %s, serial of %d bits", tt.firmware, cert.SignatureAlgorithm, device.SignatureAlgorithm, cert.SerialNumber.BitLen())
		}
		if !device.IsCA || device.MaxPathLen != 0 || len(device.Extensions) != 2 || !device.Extensions[0].Id.Equal(oidFirmware) {
			t.Errorf("%s: device certificate: %+v", tt.firmware, device.Extensions)
		}
		if again := c.attested(0x9C); again.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			t.Errorf("%s: two attestations of one serial number", tt.firmware)
		}
	}
}

// A card can be given a chain that is wrong on purpose.
func TestReplace(t *testing.T) {
	i := issuer(t)
	c := newCard(t, fw574)
	c.administrator()
	c.generate(0x11, 0x9A, 2, 2)
	for chain, by := range map[Chain]*Authority{ChainPIV: i.PIV, ChainFIDO: i.FIDO, ChainPIVRoot: i.PIVRoot} {
		if err := c.card.Replace(i, chain); err != nil {
			t.Fatal(err)
		}
		device := c.device()
		if err := device.CheckSignatureFrom(by.Certificate); err != nil {
			t.Errorf("%s: %v", chain, err)
		}
		if err := c.attested(0x9A).CheckSignatureFrom(device); err != nil {
			t.Errorf("%s: %v", chain, err)
		}
	}
	foreign, err := NewIssuer()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.card.Replace(foreign, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.device().CheckSignatureFrom(i.PIV.Certificate); err == nil {
		t.Error("the foreign issuer's card passes for ours")
	}
	if err := c.card.Replace(i, "u2f"); err == nil {
		t.Error("a chain that is none: got no error")
	}
	c.generate(0x11, 0xF9, 2, 1) // a key that its certificate does not fit: the card attests all the same
	if err := c.attested(0x9A).CheckSignatureFrom(c.device()); err == nil {
		t.Error("the attestation of a replaced key verifies")
	}
}

func TestFaults(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	c.generate(0x11, 0x9A, 1, 1)
	extension := func(oid asn1.ObjectIdentifier) []byte {
		for _, e := range c.attested(0x9A).Extensions {
			if e.Id.Equal(oid) {
				return e.Value
			}
		}
		return nil
	}
	set := func(f Faults) {
		t.Helper()
		if err := c.card.SetFaults(f); err != nil {
			t.Fatal(err)
		}
	}
	set(Faults{Touch: "always", PIN: "once", Firmware: "5.2.7", Serial: 77, Slot: "9c"})
	if got := extension(oidPolicy); !bytes.Equal(got, []byte{2, 2}) {
		t.Errorf("policy: got % x", got)
	}
	if got := extension(oidFirmware); !bytes.Equal(got, []byte{5, 2, 7}) {
		t.Errorf("firmware: got % x", got)
	}
	if got := extension(oidSerial); !bytes.Equal(got, []byte{2, 1, 77}) {
		t.Errorf("serial: got % x", got)
	}
	if got := c.attested(0x9A).Subject.CommonName; got != "YubiKey PIV Attestation 9c" {
		t.Errorf("name: got %q", got)
	}
	for i, oid := range []asn1.ObjectIdentifier{oidFirmware, oidSerial, oidPolicy, oidFormFactor} {
		set(Faults{Without: []string{faultyExtensions[i]}})
		if got := extension(oid); got != nil || len(c.attested(0x9A).Extensions) != 3 {
			t.Errorf("without %s: got % x", faultyExtensions[i], got)
		}
	}
	set(Faults{Expired: true})
	if got := c.attested(0x9A); got.NotAfter.Sub(got.NotBefore) != 24*time.Hour || got.NotAfter.Year() != 2024 {
		t.Errorf("expired: got until %s", got.NotAfter)
	}
	c.must(0xFE, 0x11, 0x9A, append([]byte{6, 32}, bytes.Repeat([]byte{3}, 32)...))
	set(Faults{Imported: true})
	c.attested(0x9A)
	set(Faults{})
	c.refused(statusData, 0xF9, 0x9A, 0, nil)
	for _, f := range []Faults{{Without: []string{"key"}}, {Firmware: "9"}, {Touch: "often"}, {PIN: "x"}, {Slot: strings.Repeat("9", 100)}} {
		if err := c.card.SetFaults(f); err == nil {
			t.Errorf("%+v: got no error", f)
		}
	}
}

func TestIssuerFile(t *testing.T) {
	path := t.TempDir() + "/issuer.json"
	i := issuer(t)
	if err := i.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadOrNewIssuer(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range i.authorities() {
		if b := got.authorities()[name]; !bytes.Equal((*a).Certificate.Raw, (*b).Certificate.Raw) || (*b).key == nil {
			t.Errorf("%s is another one", name)
		}
	}
	fresh, err := LoadOrNewIssuer(path + ".new")
	if err != nil {
		t.Fatal(err)
	}
	if got, err = LoadIssuer(path + ".new"); err != nil || !got.PIV.Certificate.Equal(fresh.PIV.Certificate) {
		t.Errorf("a new issuer does not come back: %v", err)
	}
	if _, err := LoadIssuer(path + ".none"); err == nil {
		t.Error("no file: got no error")
	}
	if all := i.DeviceIssuers(); len(all) != 3 || all[2].Applet != "fido2" || all[1].Certificate != i.PIV.Base64() {
		t.Errorf("device issuers: got %+v", all)
	}
}
