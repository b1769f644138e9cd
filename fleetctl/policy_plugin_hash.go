package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"mayfly/internal/command"
	"mayfly/internal/hint"
)

var policyPluginHashVerb = command.Verb{
	Name:    "policy plugin-hash",
	Args:    "FILE",
	Summary: "print the lines that pin a plugin in policy.toml",
	Help: `Prints a [[plugin]] table for policy.toml with the name and the SHA-256 of FILE. A bastion runs a plugin only if its file is
exactly this one; docs/formats/plugin.md says what a plugin is.

Example:

  fleetctl policy plugin-hash plugins/site-hours >> policy.toml`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() != 1 {
			return command.Usagef("want one FILE")
		}
		f, err := openFile(fs.Arg(0))
		if err != nil {
			return hint.New(fmt.Errorf("reading the plugin: %w", err), "give the path of the plugin's program")
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("reading the plugin: %w", err)
		}
		_, err = fmt.Fprintf(c.Stdout, "\n[[plugin]]\nname = %q\nsha256 = \"%x\"\ndecides = [\"login\", \"target\"]\n", filepath.Base(fs.Arg(0)), h.Sum(nil))
		return err
	},
}
