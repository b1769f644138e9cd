package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"mayfly/internal/command"
	"mayfly/internal/durable"
)

const maxBackup = 1 << 30

var backupVerb = command.Verb{
	Name:    "backup",
	Args:    "--dir DIR --out FILE",
	Summary: "write all that the store holds into a file",
	Help: `The file (0600) holds servers and lives, hashes of tickets, orders, the journal, logins and what is known of releases; no key, and nothing
of the signer's. It ends with a digest.

Example:

  fleetctl backup --dir lab --out lab.backup`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		out := fs.String("out", "", "`file` to write")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *out == "" {
			return command.Usagef("--out names the file to write")
		}
		s, err := state(*dir).openReadOnly(ctx)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := errors.Join(s.Export(ctx, &b), s.Close()); err != nil {
			return err
		}
		if err := durable.WriteFile(*out, b.Bytes(), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "%x  %s\n", sha256.Sum256(b.Bytes()), *out)
		return nil
	},
}
