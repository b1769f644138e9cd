package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
)

var requestSignVerb = command.Verb{
	Name:    "request sign",
	Args:    "FILE --dir DIR --key FILE",
	Summary: "sign a request that somebody made, as another person",
	Help: `Shows the request and signs its exact bytes with your own enrolled hardware key, into FILE.sig. Nobody counts twice. The agent shows
"sign a mayfly-request", and cannot show which: read what is printed here before you touch.

Example:

  fleetctl request sign lab/requests/drain-5f3c9a1b.json --dir lab --key ~/.ssh/id_yubikey.pub`,
	Run: runRequestSign,
}

func runRequestSign(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	key := fs.String("key", "", "`file` of your own public key in the agent, or private key in a test fleet")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 1 || *key == "" {
		return command.Usagef("one FILE and --key are needed")
	}
	path, now := fs.Arg(0), time.Now()
	_, b, err := state(*dir).decides(ctx, now)
	if err != nil {
		return err
	}
	s, r, err := openRequest(path, b, now)
	if err != nil {
		return err
	}
	sig, err := signRequest(c, b, s.Data, *key) // may wait for a touch: nobody else has to wait for that
	if err != nil {
		return err
	}
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = errors.Join(addToRequest(path, b, s, sig), unlock())
	if err != nil {
		return err
	}
	return tellRequest(c, b.Policy, r, *s)
}

// openRequest reads a request that is worth signing: of this fleet, and in force.
func openRequest(path string, b *bundle.Bundle, now time.Time) (*request.Signed, request.Request, error) {
	s, err := readRequest(path)
	if err != nil {
		return nil, request.Request{}, err
	}
	r, err := request.Parse(s.Data)
	if err != nil {
		return nil, r, mendRequest(fmt.Errorf("%s: %w", path, &request.Refusal{Reason: request.Malformed, Err: err}))
	}
	if r.Fleet != b.Fleet {
		err = request.Refuse(request.OtherFleet, "it is for fleet %q, not %q", r.Fleet, b.Fleet)
	} else if !now.Before(r.Expires) {
		err = request.Refuse(request.Expired, "it expired at %s", r.Expires.Format(time.RFC3339))
	}
	if err != nil {
		return nil, r, mendRequest(fmt.Errorf("%s: %w", path, err))
	}
	return s, r, nil
}

// addToRequest puts a signature to those that are there now. The caller holds the directory.
func addToRequest(path string, b *bundle.Bundle, s *request.Signed, sig []byte) error {
	present, err := readRequest(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(present.Data, s.Data) {
		return hint.New(fmt.Errorf("%s has changed while it was being signed", path), "look at it and sign it again")
	}
	mine, err := request.Signers(b.Policy, request.Signed{Data: s.Data, Signatures: sig})
	if err != nil {
		return err
	}
	have, err := request.Signers(b.Policy, *present)
	if err != nil {
		present.Signatures = nil // none that counts: there is no reason to keep them
	}
	if slices.ContainsFunc(have, func(p request.Person) bool { return p.Name == mine[0].Name }) {
		return command.Refuse(hint.New(fmt.Errorf("%s has signed %s already", mine[0].Name, path), "people count, not keys: another engineer signs"))
	}
	if len(present.Signatures) > 0 && !bytes.HasSuffix(present.Signatures, []byte("\n")) {
		present.Signatures = append(present.Signatures, '\n')
	}
	s.Signatures = append(present.Signatures, sig...)
	return durable.WriteFile(signatures(path), s.Signatures, 0o644)
}

// tellRequest says how far a request has come.
func tellRequest(c *command.Call, p policies.Policy, r request.Request, s request.Signed) error {
	people, err := request.Signers(p, s)
	if err != nil && len(s.Signatures) > 0 {
		return mendRequest(err)
	}
	by := request.Names(people)
	if by == "" {
		by = "nobody"
	}
	fmt.Fprintf(c.Stdout, "%s: signed by %s; %s\n", r.Order, by, asks(p, r.Action))
	return nil
}

// asks says how many people of whom an action takes.
func asks(p policies.Policy, action string) string {
	var ways []string
	for _, o := range p.OperatorsOf(action) {
		ways = append(ways, fmt.Sprintf("%d of %s", o.Needs(action), strings.Join(o.Engineers, ", ")))
	}
	if len(ways) == 0 {
		return "the policy lets nobody have it done"
	}
	return "it takes " + strings.Join(ways, ", or ")
}
