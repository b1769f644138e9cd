package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/release"
	"mayfly/rebuild/uki"
)

var imageSignEFIVerb = command.Verb{
	Name:    "image sign-efi",
	Args:    "--dir DIR --release DIR|VERSION --key FILE --cert FILE [--older-trust]",
	Summary: "sign a release's unified kernel image for Secure Boot",
	Help: `Checks the release's signatures and dates, its files and what is inside the image, signs its mayfly.efi with the fleet's offline key (FILE, mode 0600) and writes
mayfly.signed.efi beside it. What people have not approved is not signed: firmware knows of no threshold. The certificate has to be one that
the trust policy lists (secure_boot). The statement does not change: it names the image without its signature. An image with an older trust policy
inside than the one in force is refused, since firmware forgets nothing that it was signed; --older-trust signs it all the same.

On a machine without a network DIR needs no more than trust.json, public/trust and public/releases/VERSION.

Example:

  fleetctl image sign-efi --dir lab --release 7 --key secureboot/db.key --cert secureboot/enrol/db.crt`,
	Run: runSignEFI,
}

func runSignEFI(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	name := fs.String("release", "", "`directory` of the release, or its version")
	keyFile := fs.String("key", "", "`file` of the offline key (db.key)")
	certFile := fs.String("cert", "", "`file` of its certificate (db.crt)")
	older := olderTrustFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	if *name == "" || *keyFile == "" || *certFile == "" {
		return command.Usagef("--release, --key and --cert are needed")
	}
	d := state(*dir)
	t, trustPolicy, err := d.trust()
	if err != nil {
		return err
	}
	certificate, err := readCertificate(*certFile)
	if err != nil {
		return err
	}
	if !listedCertificate(t, certificate) {
		return command.Refuse(hint.New(fmt.Errorf("%s: %s: SHA-256 %x is not in the trust policy's secure_boot", *certFile, uki.UnknownCert, sha256.Sum256(certificate.Raw)),
			"`fleetctl init --secure-boot FILE` lists it, `fleetctl trust propose` later"))
	}
	where := d.releaseDir(*name)
	s, _, err := releaseStatement(t, where, time.Now())
	if err != nil {
		return err
	}
	if err := checkParts(s, where); err != nil {
		return err
	}
	if s.UKI == nil {
		return errNoUKI()
	}
	b := d.believed(t, trustPolicy)
	data, inside, err := b.checkUnsigned(s, where) // before the signature: what is signed once starts for ever
	if err != nil {
		return err
	}
	if err := b.notOlder(inside, filepath.Join(where, release.UKIFile), *older); err != nil {
		return err
	}
	key, err := readSecureBootKey(*keyFile)
	if err != nil {
		return err
	}
	signed, err := uki.Sign(data, key, certificate)
	if err != nil {
		return err
	}
	out := filepath.Join(where, release.SignedUKIFile)
	if err := durable.WriteFile(out, signed, 0o644); err != nil {
		return err
	}
	if _, err := b.checkUKI(c, s, where); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s: Authenticode SHA-256 %s\n", out, s.UKIAuthenticode)
	return nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := read(path, "`fleetctl image secureboot-keys` makes it")
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return nil, hint.New(fmt.Errorf("%s is not one certificate in PEM form", path), "give the file that ends in %s", certificateSuffix)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certificate, nil
}

// readSecureBootKey reads the offline key. A key in hardware would be another crypto.Signer.
func readSecureBootKey(path string) (crypto.Signer, error) {
	data, err := durable.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) > 0 {
		return nil, hint.New(fmt.Errorf("%s is not one private key in PEM form (PKCS #8)", path), "give the db.key that `fleetctl image secureboot-keys` made")
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T signs nothing", path, key)
	}
	return signer, nil
}
