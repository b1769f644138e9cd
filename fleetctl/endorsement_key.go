package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/rebuild/attest"
)

// maxEndorsementFile bounds what is read of an endorsement key: certificates of TPMs have 1 to 2 KiB.
const maxEndorsementFile = 64 << 10

var endorsementKeyVerb = command.Verb{
	Name:    "endorsement-key",
	Args:    "--ek FILE [-o json]",
	Summary: "show the name of a TPM's endorsement key, for endorsement_key in the inventory",
	Help: `FILE is the public area of the key (TPM2B_PUBLIC or TPMT_PUBLIC, as tpm2_createek and tpm2_readpublic write it) or its certificate by the
TPM's maker (PEM or DER). The key has to be of the standard's template for P-256, which servers use, or for RSA 2048.

On the machine: tpm2_createek -G ecc -c ek.ctx -u ek.pub. The refusal quote_ek_unknown shows the hash of the key that it saw, too; who copies
it from there believes whatever answered.

Example:

  fleetctl endorsement-key --ek ek.pub`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		file := fs.String("ek", "", "public area or certificate of the endorsement key, `FILE`")
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		if *file == "" {
			return command.Usagef("endorsement-key takes --ek FILE")
		}
		data, err := readBounded(*file, "tpm2_createek -G ecc -c ek.ctx -u ek.pub makes it", maxEndorsementFile)
		if err != nil {
			return err
		}
		if block, _ := pem.Decode(data); block != nil {
			data = block.Bytes
		}
		area, err := attest.EndorsementArea(data)
		if err != nil {
			return hint.New(fmt.Errorf("%s: %w", *file, err), "tpm2_createek -G ecc -c ek.ctx -u ek.pub writes one that can be read")
		}
		report := struct {
			EndorsementKey string `json:"endorsement_key"`
		}{attest.EndorsementHash(area)}
		if *output == "json" {
			return show(c.Stdout, *output, report, nil, nil)
		}
		_, err = fmt.Fprintf(c.Stdout, "endorsement_key = %q\n", report.EndorsementKey)
		return err
	},
}
