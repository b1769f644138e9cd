package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
)

var certifyVerb = command.Verb{
	Name:    "certify",
	Args:    "--dir DIR --bastion NAME --key HOSTKEY.pub [--out FILE]",
	Summary: "have a bastion's SSH host key certified by the signer",
	Help: `Asks the signer, which has to run, for an SSH host certificate of a bastion that the signed inventory names, and writes it
beside the key (HOSTKEY-cert.pub) or to --out. Servers get theirs when they join; this is for bastions only.

Example:

  fleetctl certify --dir lab --bastion bastion-1 --key bastion/host_key.pub`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		bastion := fs.String("bastion", "", "`name` in the inventory")
		key := fs.String("key", "", "`file` of the bastion's public host key")
		out := fs.String("out", "", "`file` of the certificate (default: the key's name with -cert.pub)")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *bastion == "" || *key == "" {
			return command.Usagef("--bastion and --key are needed")
		}
		data, err := read(*key, "`ssh-keygen -t ed25519` makes a host key; give its .pub")
		if err != nil {
			return err
		}
		public, _, _, rest, err := ssh.ParseAuthorizedKey(data)
		if err != nil || len(strings.TrimSpace(string(rest))) > 0 {
			return hint.New(fmt.Errorf("%s is not one public key", *key), "give the host key's .pub")
		}
		cert, err := signer.Dial(*dir).Host(ctx, *bastion, trust.FormatKey(public))
		if err != nil {
			return fmt.Errorf("certifying %s: %w", *bastion, needsSigner(err))
		}
		if *out == "" {
			*out = strings.TrimSuffix(*key, ".pub") + "-cert.pub"
		}
		if err := durable.WriteFile(*out, []byte(strings.TrimSpace(cert)+"\n"), 0o644); err != nil {
			return err
		}
		fmt.Fprintln(c.Stdout, *out)
		return nil
	},
}

// needsSigner names the mend when the signer does not answer and the client did not say so.
func needsSigner(err error) error {
	if err == nil || hint.Of(err) != "" {
		return err
	}
	var refused interface{ Refused() bool }
	if errors.As(err, &refused) {
		return err
	}
	return hint.New(err, "is `fleetctl signer --dir DIR` running?")
}
