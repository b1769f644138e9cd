package main

import (
	"context"
	"fmt"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/rebuild/extension"
)

var extendSignVerb = command.Verb{
	Name:    "extend sign",
	Args:    "FILE --dir DIR --key FILE",
	Summary: "add one approver's signature to an extension of a server's life",
	Help: `Shows the extension and adds a signature over its exact bytes, into FILE.sig. Nobody counts twice. --key is the public key of an approver's
key in the ssh-agent (touch it when it blinks), or a private key of a test fleet.

Example:

  fleetctl extend sign lab/extensions/nl-1-7-20261121T120000Z.json --dir lab --key ana.pub`,
	Run: runExtendSign,
}

func runExtendSign(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	key := fs.String("key", "", "`file` of the approver's public key in the agent, or private key")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 1 || *key == "" {
		return command.Usagef("one FILE and --key are needed")
	}
	t, _, err := state(*dir).trust()
	if err != nil {
		return err
	}
	data, e, err := readExtension(fs.Arg(0))
	if err != nil {
		return err
	}
	if e.Fleet != t.Fleet {
		return command.Refuse(extension.Refuse(extension.OtherFleet, "it is for fleet %q, not %q", e.Fleet, t.Fleet))
	}
	fmt.Fprintf(c.Stderr, "fleetctl: life %d of %s goes on until %s: %s\n", e.Epoch, e.Server, e.Until.Format(time.RFC3339), e.Reason)
	a, err := approve(t, extension.Namespace, fs.Arg(0), data, *key)
	if err != nil {
		return err
	}
	a.report(c, t, fs.Arg(0))
	return nil
}

// readExtension reads the file that people sign.
func readExtension(path string) ([]byte, *extension.Extension, error) {
	data, err := readBounded(path, "`fleetctl extend make` writes it", extension.MaxBytes)
	if err != nil {
		return nil, nil, err
	}
	e, err := extension.Parse(data)
	if err != nil {
		return nil, nil, command.Refuse(hint.New(&extension.Refusal{Reason: extension.Malformed, Err: err}, "`fleetctl extend make` writes extensions"))
	}
	return data, e, nil
}
