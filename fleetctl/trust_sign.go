package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

var trustSignVerb = command.Verb{
	Name:    "trust sign",
	Args:    "--dir DIR --key FILE",
	Summary: "add one person's signature to the next trust policy",
	Help: `Shows what DIR/trust-next.json changes, and adds a signature over its exact bytes, as an approver, as one of the recovery, or as an approver
that it names. FILE is the public key of one that an ssh-agent holds (touch it when it blinks), or a private key (mode 0600).

A person signs once for all that the person is. ` + "`fleetctl trust apply`" + ` puts it in force when there are enough signatures.

Example:

  fleetctl trust sign --dir lab --key ana.pub`,
	Run: runTrustSign,
}

func runTrustSign(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	key := fs.String("key", "", "`file` of the signer's public key in the agent, or private key")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	if *key == "" {
		return command.Usagef("--key is needed")
	}
	d := state(*dir)
	n, err := d.nextTrust()
	if err != nil {
		return err
	}
	s, err := loadSigner(*key, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	line := trust.FormatKey(s.PublicKey())
	roles := n.roles(line)
	if len(roles) == 0 {
		return command.Refuse(hint.New(fmt.Errorf("%s is nobody's key: no approver's, no recovery person's, and none of the new approvers'", ssh.FingerprintSHA256(s.PublicKey())),
			"`fleetctl trust show` lists whose signatures count"))
	}
	fmt.Fprintf(c.Stderr, "fleetctl: trust policy %d of fleet %s, which follows %d, sha256 %s:\n", n.next.Version, n.next.Fleet, n.old.Version, trust.Sum(n.data))
	for _, change := range changes(n.old, n.next) {
		fmt.Fprintf(c.Stderr, "  %s\n", change)
	}
	if err := n.unsigned(line); err != nil {
		return err
	}
	block, err := sshsig.Sign(s, trust.Namespace, n.data) // may wait for a touch: nobody else has to wait for that
	if err != nil {
		return fmt.Errorf("signing %s: %w", d.nextTrustFile(), err)
	}
	if n, err = d.addTrustSignature(n, line, block); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s: signed by %s\n", d.nextTrustFile(), strings.Join(roles, ", "))
	for _, l := range n.standing() {
		fmt.Fprintf(c.Stdout, "  %s\n", l)
	}
	if n.old.Test {
		fmt.Fprintln(c.Stderr, "fleetctl: warning: TEST FLEET: software keys count")
	}
	if _, err := trust.Advance(n.old, n.data, n.sigs); err == nil {
		fmt.Fprintln(c.Stderr, "fleetctl: next: `fleetctl trust apply`: there are enough signatures")
	}
	return nil
}

// unsigned refuses where a key's owner counts already in all that the owner is.
func (n *nextTrust) unsigned(line string) error {
	for _, r := range []struct {
		people []trust.Person
		signed []string
	}{{n.old.Approvers, n.byOld}, {n.old.Recovery.People, n.bySafe}, {n.next.Approvers, n.byNew}} {
		for _, p := range r.people {
			if slices.Contains(p.Keys, line) && !slices.Contains(r.signed, p.Name) {
				return nil
			}
		}
	}
	return command.Refuse(hint.New(fmt.Errorf("%s has signed it already", strings.Join(n.roles(line), ", ")), "the thresholds count people: somebody else signs"))
}

// addTrustSignature puts a signature to those that are there now: others may have signed since this one was begun.
func (d state) addTrustSignature(was *nextTrust, line string, block []byte) (n *nextTrust, err error) {
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if n, err = d.nextTrust(); err != nil {
		return nil, err
	}
	if !bytes.Equal(n.data, was.data) {
		return nil, hint.New(fmt.Errorf("%s has changed while it was being signed", d.nextTrustFile()), "look at it and sign it again")
	}
	if err := n.unsigned(line); err != nil {
		return nil, err
	}
	if len(n.byOld)+len(n.bySafe)+len(n.byNew) == 0 {
		n.sigs = nil // of an older proposal
	}
	if len(n.sigs) > 0 && !bytes.HasSuffix(n.sigs, []byte("\n")) {
		n.sigs = append(n.sigs, '\n')
	}
	n.sigs = append(n.sigs, block...)
	n.count()
	if len(n.sigs) > trust.MaxSignatureBytes {
		return nil, fmt.Errorf("signatures of more than %d bytes", trust.MaxSignatureBytes)
	}
	return n, durable.WriteFile(signatures(d.nextTrustFile()), n.sigs, 0o644)
}
