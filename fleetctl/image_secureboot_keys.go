package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/uki"
)

// secureBootYears is how long the certificates say that they hold. Firmware does not look at it; people and tools do.
const secureBootYears = 20

// Endings of what is made for each of the three variables.
const (
	certificateSuffix = ".crt"  // PEM, for sign-efi and init
	derSuffix         = ".der"  // for firmware menus
	listSuffix        = ".esl"  // EFI signature list
	updateSuffix      = ".auth" // the same, signed: for enrolment from a running system
)

var imageSecureBootKeysVerb = command.Verb{
	Name:    "image secureboot-keys",
	Args:    "--fleet NAME --out DIR [--bits 2048|3072|4096]",
	Summary: "make a fleet's offline Secure Boot keys, and the files that firmware enrols",
	Help: `Makes three RSA keys in DIR, which must not be there yet: PK.key owns a server's firmware, KEK.key may change what boots there, db.key
signs what boots (fleetctl image sign-efi). Run it on a machine without a network, and keep DIR there; PK.key and KEK.key belong in a safe.

DIR/enrol holds no secret: certificates (.crt as PEM, .der), signature lists (.esl) and signed updates (.auth) of all three, for a server's
setup menu or its BMC, or for a system in setup mode; noPK.auth takes a server back to setup mode. Enrol db, then KEK, then PK. Nothing of
Microsoft's is among them: such a server starts this fleet's images and nothing else, also no option ROM signed by others.

Example:

  fleetctl image secureboot-keys --fleet demo --out secureboot`,
	Run: runSecureBootKeys,
}

// enrolled is one variable with its key.
type enrolled struct {
	variable    uki.Variable
	key         crypto.Signer
	certificate *x509.Certificate
	list        []byte
}

func runSecureBootKeys(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	fleet := fs.String("fleet", "", "`name` of the fleet, for people to know the certificates by")
	out := fs.String("out", "", "`directory` to make")
	bits := fs.Int("bits", uki.MinKeyBits, "`size` of the keys; some firmware takes 2048 only")
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return err
	}
	if *fleet == "" || *out == "" {
		return command.Usagef("--fleet and --out are needed")
	}
	if *bits != 2048 && *bits != 3072 && *bits != 4096 {
		return command.Usagef("--bits %d: it is 2048, 3072 or 4096", *bits)
	}
	if err := os.Mkdir(*out, 0o700); err != nil {
		return hint.New(fmt.Errorf("making the directory: %w", err), "keys are made once: name a directory that is not there")
	}
	now := time.Now().UTC().Truncate(time.Second)
	var all []enrolled
	for _, v := range []uki.Variable{uki.PK, uki.KEK, uki.DB} {
		key, err := rsa.GenerateKey(rand.Reader, *bits)
		if err != nil {
			return err
		}
		e := enrolled{variable: v, key: key}
		if e.certificate, err = uki.Certify(*fleet+" Secure Boot "+v.Name, key, now, now.AddDate(secureBootYears, 0, 0)); err != nil {
			return err
		}
		e.list = uki.SignatureList(*fleet, e.certificate)
		all = append(all, e)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(*out, v.Name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return err
		}
	}
	dir := filepath.Join(*out, "enrol")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := writeEnrolment(dir, all, now); err != nil {
		return err
	}
	var rows [][]string
	sums := map[string]string{}
	for _, e := range all {
		sum := fmt.Sprintf("%x", sha256.Sum256(e.certificate.Raw))
		sums[e.variable.Name] = sum
		rows = append(rows, []string{e.variable.Name, filepath.Join(*out, e.variable.Name+".key"), sum})
	}
	if err := show(c.Stdout, *output, map[string]any{"certificates": sums, "directory": *out}, []string{"VARIABLE", "KEY", "SHA-256 OF THE CERTIFICATE"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl init --secure-boot %s`; enrol what is in %s on each server; `fleetctl image sign-efi` signs releases\n",
		filepath.Join(dir, uki.DB.Name+certificateSuffix), dir)
	return nil
}

// writeEnrolment writes what firmware takes: PK and KEK signed by PK, db by KEK.
func writeEnrolment(dir string, all []enrolled, now time.Time) error {
	pk, kek := all[0], all[1]
	write := func(name string, data []byte, err error) error {
		if err != nil {
			return err
		}
		return durable.WriteFile(filepath.Join(dir, name), data, 0o644)
	}
	for _, e := range all {
		by := pk
		if e.variable == uki.DB {
			by = kek
		}
		update, err := uki.SignedUpdate(e.variable, e.list, by.key, by.certificate, now)
		name := e.variable.Name
		if err := errors.Join(
			write(name+certificateSuffix, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.certificate.Raw}), nil),
			write(name+derSuffix, e.certificate.Raw, nil),
			write(name+listSuffix, e.list, nil),
			write(name+updateSuffix, update, err)); err != nil {
			return err
		}
	}
	// Dated later, so that firmware takes it after the PK that it removes.
	empty, err := uki.SignedUpdate(uki.PK, nil, pk.key, pk.certificate, now.Add(time.Second))
	return write("noPK"+updateSuffix, empty, err)
}
