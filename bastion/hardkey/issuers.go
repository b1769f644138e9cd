package hardkey

import (
	"crypto/x509"
	"embed"
	"encoding/pem"
	"slices"
	"sync"
)

// Yubico's certificates, as it publishes them. piv.pem and fido2.pem hold only those that sign device certificates of that applet.
//
//go:embed issuers/*.pem
var issuerFiles embed.FS

// otherApplet is what other.pem's certificates are for: OpenPGP, the Security Domain, and those that sign none but issuers.
const otherApplet = "other"

// issuer of device certificates.
type issuer struct {
	name        string
	applet      string
	certificate *x509.Certificate
	test        bool
}

// builtin returns the issuers that every fleet has. Their certificates are read once.
var builtin = sync.OnceValue(func() []issuer {
	var list []issuer
	for _, applet := range []string{KindPIV, KindFIDO2, otherApplet} {
		rest, err := issuerFiles.ReadFile("issuers/" + applet + ".pem")
		if err != nil {
			panic("hardkey: internal error: " + err.Error())
		}
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				panic("hardkey: internal error: " + err.Error())
			}
			list = append(list, issuer{name: cert.Subject.CommonName, applet: applet, certificate: cert})
		}
	}
	return list
})

// issuerOf finds who signed a device certificate of the applet, itself and directly.
func (c rules) issuerOf(device *x509.Certificate, applet string) (issuer, *Rejection) {
	i := slices.IndexFunc(c.issuers, func(is issuer) bool { return is.applet == applet && signed(is.certificate, device) })
	if i < 0 {
		i = slices.IndexFunc(c.issuers, func(is issuer) bool { return signed(is.certificate, device) })
		if i >= 0 {
			return issuer{}, reject(OtherApplet, "attest the key with the applet that holds it",
				"the device certificate is by %q, which does not certify devices of %s", c.issuers[i].name, applet)
		}
		return issuer{}, reject(Chain, "use a key of a maker that the fleet knows; a key that was imported, or whose device certificate (f9) was replaced, cannot prove anything",
			"nobody whom the fleet knows as an issuer of %s devices signed the device certificate; it names %q", applet, clip(device.Issuer.CommonName))
	}
	is := c.issuers[i]
	if slices.ContainsFunc(c.issuers, func(is issuer) bool { return is.certificate.Equal(device) }) {
		return issuer{}, reject(Chain, "enrol again with bastion-agent enroll", "what stands for the device certificate is the certificate of the issuer %q itself", is.name)
	}
	if is.test && !c.Test {
		return issuer{}, reject(TestIssuer, "enrol a real key", "the key is a virtual card's (test issuer %q), which is software, and the fleet does not say test = true", is.name)
	}
	return is, nil
}
