package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"mayfly/bastion/card"
	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/enrolment"
)

const enrollHelp = `It writes a request to enrol a key in a fleet (docs/formats/enrolment.md), for fleetctl key add. The challenge is the file that
fleetctl key challenge wrote for you; it names the fleet and you, and you see both before the key signs it.

For a key on a PIV card the request holds the public key, the card's attestation of it, the card's own certificate, and the challenge
signed by the key: that takes PIN and touch. For a FIDO2 key it holds what ssh-keygen wrote:

  ssh-keygen -t ed25519-sk -O verify-required -O challenge=challenge.txt -O write-attestation=key.attestation -f key
  bastion-agent enroll --fido2 key.pub --attestation key.attestation --challenge challenge.txt --out request.json

What a fleet would refuse is said here and not written, with exit code 3; the rules of a fleet may be wider or narrower than those it has
by itself, so --write-refused writes it nevertheless.

  bastion-agent enroll --challenge challenge.txt --out request.json`

// Bounds of files (implementation constants).
const (
	maxChallengeFile = 4 << 10
	maxPublicFile    = 16 << 10
	maxAttestation   = 32 << 10
)

var enrollVerb = command.Verb{
	Name:    "enroll",
	Args:    "--challenge FILE [--slot SLOT | --fido2 FILE --attestation FILE] [--out FILE] [flags]",
	Summary: "write a request to enrol a key",
	Help:    enrollHelp,
	Run:     enroll,
}

func enroll(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	challengeFile := fs.String("challenge", "", "`file` with the fleet's challenge")
	which := fs.String("slot", card.SlotAuthentication.String(), "`slot` of the key on a PIV card")
	serial := fs.Uint("serial", 0, "serial `number` of the card, if there are several")
	fido2 := fs.String("fido2", "", "`file` with the public key of a FIDO2 key, instead of a PIV card")
	attestation := fs.String("attestation", "", "`file` that ssh-keygen -O write-attestation wrote")
	out := fs.String("out", "", "`file` to write the request to, instead of standard output")
	floor := fs.String("min-firmware", minFirmware, "`version` that the fleet asks for")
	pinFile := fs.String("pin-file", "", "`file` of mode 0600 with the PIN, instead of asking")
	var models []string
	fs.Func("aaguid", "FIDO2: `model` that the fleet lists; repeated; none: this one is taken for listed", func(m string) error { models = append(models, m); return nil })
	write := fs.Bool("write-refused", false, "write a request that looks as if the fleet refused it")
	issuers := issuerFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	switch {
	case *challengeFile == "" || fs.NArg() > 0:
		return command.Usagef("want --challenge FILE")
	case (*fido2 == "") != (*attestation == ""):
		return command.Usagef("--fido2 and --attestation go together")
	}
	slot, err := card.ParseSlot(*which)
	if err != nil {
		return command.Usagef("--slot: %v", err)
	}
	number, err := serialOf(*serial)
	if err != nil {
		return err
	}
	if _, err := card.ParseVersion(*floor); err != nil {
		return command.Usagef("--min-firmware: %v", err)
	}
	r, err := rules(*floor, *issuers)
	if err != nil {
		return err
	}
	r.AAGUIDs = models
	if err := r.Check(); err != nil {
		return command.Usagef("--aaguid, --min-firmware or --test-issuer: %v", err)
	}
	data, err := durable.ReadFile(*challengeFile, maxChallengeFile)
	if err != nil {
		return fmt.Errorf("reading the challenge: %w", err)
	}
	challenge, err := card.ReadChallenge(data)
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	who := &person{out: c.Stderr, pinFile: *pinFile, read: readTerminal}
	var e card.Enrolment
	if *fido2 == "" {
		e, err = card.Enroll(ctx, reach(), who, number, slot, challenge, r, time.Now())
	} else {
		e, err = enrollFIDO2(who, *fido2, *attestation, challenge, r)
	}
	if err != nil {
		return err
	}
	if err := judged(who, e, *write); err != nil {
		return err
	}
	request, err := enrolment.New(e.Challenge, e.Public, e.Shown).Marshal()
	if err != nil {
		return err
	}
	if *out == "" {
		_, err = c.Stdout.Write(request)
		return err
	}
	if err := durable.WriteFile(*out, request, 0o644); err != nil {
		return err
	}
	who.Say(fmt.Sprintf("%s: hand it to who looks after fleet %s, for fleetctl key add", *out, challenge.Fleet))
	return nil
}

func enrollFIDO2(who *person, public, attestation string, c hardkey.Challenge, r hardkey.Rules) (card.Enrolment, error) {
	key, err := durable.ReadFile(public, maxPublicFile)
	if err != nil {
		return card.Enrolment{}, fmt.Errorf("reading the public key: %w", err)
	}
	shown, err := durable.ReadFile(attestation, maxAttestation)
	if errors.Is(err, os.ErrNotExist) {
		return card.Enrolment{}, hint.New(fmt.Errorf("reading the attestation: %w", err), "ssh-keygen -O write-attestation=%s writes it when it makes the key, and never later", attestation)
	} else if err != nil {
		return card.Enrolment{}, fmt.Errorf("reading the attestation: %w", err)
	}
	who.Say(fmt.Sprintf("fleet %s enrols the key in %s for %s (challenge of %s)", c.Fleet, public, c.Name, c.Made.Format(time.RFC3339)))
	return card.EnrollFIDO2(key, shown, c, r, time.Now())
}

// judged says what is proved, or why a fleet would refuse it.
func judged(who *person, e card.Enrolment, write bool) error {
	if e.Rejection == nil {
		if e.Proof.Kind == hardkey.KindFIDO2 {
			pin := "asks for its PIN"
			if !e.Proof.UserVerification {
				pin = "asks for NO PIN (ssh-keygen -O verify-required has one that does)"
			}
			who.Say(fmt.Sprintf("proved: a FIDO2 key of model %s, attested by %s, which %s. The fleet has to list this model in [hardware] aaguids", e.Proof.AAGUID, e.Proof.Issuer, pin))
		} else {
			who.Say(fmt.Sprintf("proved: made on card %d (firmware %s, attested by %s), slot %s, a touch for each signature, PIN %s", e.Proof.Serial, e.Proof.Firmware, e.Proof.Issuer, e.Proof.Slot, e.Proof.PINPolicy))
		}
		return nil
	}
	refusal := fmt.Errorf("by what is known here, the fleet will refuse this key: %w (%s)", e.Rejection, e.Rejection.Reason)
	if write {
		who.Say(refusal.Error())
		return nil
	}
	mend := hint.Of(e.Rejection)
	if mend != "" {
		mend += "; "
	}
	return command.Refuse(hint.New(refusal, "%s--write-refused writes the request if you know that the fleet's rules are wider", mend))
}
