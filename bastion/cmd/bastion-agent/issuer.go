package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"

	"mayfly/bastion/hardkey"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// maxIssuer bounds the file of a test issuer, in bytes.
const maxIssuer = 64 << 10

// issuerFlag is where virtual cards get believed: for tests, and only in fleets that say test = true.
func issuerFlag(fs *flag.FlagSet) *[]string {
	var files []string
	fs.Func("test-issuer", "`file` (PEM) with the issuer of a virtual card's device certificate, for tests; repeated", func(file string) error {
		files = append(files, file)
		return nil
	})
	return &files
}

// rules are what a fleet asks for as far as it is known here.
func rules(floor string, issuers []string) (hardkey.Rules, error) {
	r := hardkey.Rules{MinFirmware: floor, Test: len(issuers) > 0}
	for _, file := range issuers {
		data, err := durable.ReadFile(file, maxIssuer)
		if err != nil {
			return hardkey.Rules{}, err
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return hardkey.Rules{}, hint.New(fmt.Errorf("%s: %w", file, errors.New("no PEM block")), "it is the certificate of the authority that signs a virtual card's device certificate")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return hardkey.Rules{}, fmt.Errorf("%s: %w", file, err)
		}
		for _, applet := range []string{hardkey.KindPIV, hardkey.KindFIDO2} {
			r.TestIssuers = append(r.TestIssuers, hardkey.Issuer{Name: c.Subject.CommonName, Applet: applet, Certificate: base64.StdEncoding.EncodeToString(c.Raw)})
		}
	}
	return r, nil
}
