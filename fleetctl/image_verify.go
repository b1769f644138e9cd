package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"mayfly/internal/command"
	"mayfly/rebuild/release"
)

var imageVerifyVerb = command.Verb{
	Name:    "image verify",
	Args:    "--dir DIR --release DIR|VERSION",
	Summary: "check a release as a server's stub would, and every file of it",
	Help: `Checks the signatures over the release's statement against DIR/trust.json, then what it says (fleet, validity, version), then
the size and hash of every file, and that a unified kernel image holds the same kernel, stub, command line and a trust policy of this fleet;
if it is signed for Secure Boot, by whom. Exit code 3 when any of it is refused.

Example:

  fleetctl image verify --dir lab --release 7`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		name := fs.String("release", "", "`directory` of the release, or its version")
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		if *name == "" {
			return command.Usagef("--release is needed")
		}
		d := state(*dir)
		t, trustPolicy, err := d.trust()
		if err != nil {
			return err
		}
		s, _, err := releaseStatement(t, d.releaseDir(*name), time.Now())
		if err != nil {
			return err
		}
		if err := checkParts(s, d.releaseDir(*name)); err != nil {
			return err
		}
		if err := d.checkUKI(c, t, trustPolicy, s, d.releaseDir(*name)); err != nil {
			return err
		}
		rows := [][]string{{release.StatementFile, "version " + strconv.FormatUint(s.Version, 10), "signed, until " + s.NotAfter.Format(time.RFC3339)}}
		for _, p := range parts(s) {
			rows = append(rows, []string{p.file, strconv.FormatInt(p.part.Size, 10), p.part.SHA256})
		}
		return show(c.Stdout, *output, s, []string{"FILE", "BYTES", "SHA-256"}, rows)
	},
}
