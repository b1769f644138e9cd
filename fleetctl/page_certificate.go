package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/join"
)

// maxCSRFile bounds a certificate request.
const maxCSRFile = 64 << 10

var pageCertificateVerb = command.Verb{
	Name:    "page-certificate",
	Args:    "ENGINEER --dir DIR --csr FILE --out FILE [--for DURATION] [--sign FILE --reason TEXT | --request FILE]",
	Summary: "certify an engineer's key for the page of `fleetctl serve`",
	Help: `The key is made on the engineer's machine, of P-256, and stays there; FILE is its certificate request (PEM), of which the public key alone counts. The
certificate is by the operators' CA (DIR/operators-ca.pem), which certifies nothing else and which the page alone believes; it lasts 12 hours
at most, and the signer puts it on record. An engineer gets one by a request that engineer has signed ("fleetctl request make page", or --sign here).

` + "`fleetctl signer`" + ` has to run. In a directory of an older fleetctl "fleetctl ca publish" makes the operators' CA; then start the signer again.

Example:

  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=anna -keyout page.key -out page.csr
  fleetctl page-certificate anna --dir lab --csr page.csr --out page.pem --sign ~/.ssh/anna.pub --reason "on duty"`,
	Run: runPageCertificate,
}

func runPageCertificate(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	leave := leaveFlagsOf(fs)
	csrFile := fs.String("csr", "", "`file` of the certificate request, PEM")
	out := fs.String("out", "", "`file` of the certificate")
	length := fs.Duration("for", signer.PageLife, "how `long` it lasts, at most 12h")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 1 || *csrFile == "" || *out == "" {
		return command.Usagef("one ENGINEER, --csr and --out are needed")
	}
	if err := errors.Join(pageSpan(*length), leave.check()); err != nil {
		return err
	}
	csr, err := readCSR(*csrFile)
	if err != nil {
		return err
	}
	d, engineer, now := state(*dir), fs.Arg(0), time.Now()
	_, b, err := d.decides(ctx, now)
	if err != nil {
		return err
	}
	order, err := signer.PageOrder(engineer, csr, *length)
	if err != nil {
		return hint.New(fmt.Errorf("%s: %w", *csrFile, err), "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=%s -keyout page.key -out page.csr", engineer)
	}
	by, err := leave.take(c, b, order, now)
	if err != nil {
		return err
	}
	chain, without, err := signer.Dial(string(d)).Page(ctx, engineer, csr, *length, by)
	if r, ok := join.IsRefusal(err); ok && r.Reason == join.NameNotAllowed {
		return hint.New(err, "ENGINEER is an [[engineer]] of the signed policy with a key; `fleetctl ca publish` makes an operators' CA where there is none")
	}
	if err != nil {
		return needsSigner(err)
	}
	if without {
		warnWithout(c)
	}
	if err := durable.WriteFile(*out, chain, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, *out)
	return nil
}

func pageSpan(length time.Duration) error {
	if length < time.Minute || length > signer.PageLife || length%time.Second != 0 {
		return command.Usagef("--for %s: it is 1m to %s, in whole seconds", length, signer.PageLife)
	}
	return nil
}

// readCSR reads a certificate request.
func readCSR(path string) ([]byte, error) {
	data, err := readBounded(path, "openssl req -new makes one", maxCSRFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, hint.New(fmt.Errorf("%s is no certificate request in PEM", path), "openssl req -new makes one")
	}
	return block.Bytes, nil
}
