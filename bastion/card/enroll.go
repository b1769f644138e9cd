package card

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/hint"
)

// Enrolment is what a key shows for itself: what a request carries to the fleet.
type Enrolment struct {
	Challenge hardkey.Challenge
	Public    string // "TYPE BASE64"
	Shown     hardkey.Shown
	Proof     hardkey.Proof
	Rejection *hardkey.Rejection // why a fleet with the rules at hand would refuse it; nil: nothing seen here
}

// ReadChallenge reads the file that a fleet sends: one line.
func ReadChallenge(data []byte) (hardkey.Challenge, error) {
	text, ended := strings.CutSuffix(string(data), "\n")
	if !ended {
		return hardkey.Challenge{}, hint.New(errors.New("the challenge does not end with a newline"), "take the file as fleetctl key challenge wrote it")
	}
	c, err := hardkey.ParseChallenge(text)
	if err != nil {
		return hardkey.Challenge{}, hint.New(fmt.Errorf("the challenge: %w", err), "take the file as fleetctl key challenge wrote it")
	}
	return c, nil
}

// Enroll has a key on a card answer a challenge, and checks as far as it can what the fleet will check.
func Enroll(ctx context.Context, reach Reach, person Person, serial uint32, slot Slot, c hardkey.Challenge, rules hardkey.Rules, now time.Time) (Enrolment, error) {
	t, _, err := Find(ctx, reach, serial)
	if err != nil {
		return Enrolment{}, err
	}
	defer t.Close()
	if serial, err = t.Serial(); err != nil {
		return Enrolment{}, err
	}
	info, err := read(t, slot)
	if FaultOf(err) == NoKey {
		return Enrolment{}, fault(NoKey, fmt.Errorf("there is no key in slot %s of card %d", slot, serial))
	} else if err != nil {
		return Enrolment{}, err
	}
	key, err := SSHKey(info.Public)
	if err != nil {
		return Enrolment{}, err
	}
	person.Say(fmt.Sprintf("fleet %s enrols the key in slot %s of card %d for %s (challenge of %s)", c.Fleet, slot, serial, c.Name, c.Made.Format(time.RFC3339)))
	person.Say("touch the key while it blinks")
	shown, err := show(t, slot, info.Public, c, func() (string, error) {
		tries, err := t.Tries()
		if err != nil {
			return "", err
		}
		return askPIN(ctx, person, tries, fmt.Sprintf("PIN of card %d, to enrol as %s in fleet %s", serial, c.Name, c.Fleet))
	})
	e := Enrolment{Challenge: c, Public: bare(key), Shown: shown}
	if FaultOf(err) == NoKey { // it is there: the card attests only what it made
		e.Rejection = &hardkey.Rejection{Reason: hardkey.Imported, Field: "attestation",
			Text: fmt.Sprintf("the card does not attest the key in slot %s: it was made elsewhere and imported, so others may have it", slot),
			Mend: "make a key on the card (bastion-agent setup) and enrol that"}
		return e, nil
	} else if err != nil {
		return Enrolment{}, err
	}
	e.Proof, e.Rejection = hardkey.Verify(c.Fleet, c.Name, e.Public, shown, rules, now)
	return e, nil
}

// askPIN asks for the PIN in force, and says how many tries it has: the last one also to who gives it in a file and sees no question.
func askPIN(ctx context.Context, person Person, tries int, text string) (string, error) {
	if tries == 1 {
		person.Say("This is the LAST try: a wrong PIN now blocks the card.")
	}
	return person.Secret(ctx, Ask{Kind: "PIN", Text: fmt.Sprintf("%s (tries left: %d)", text, tries)})
}

// EnrollFIDO2 takes what ssh-keygen wrote: the public key and the attestation over the challenge. Where the rules list no models this one is
// taken for listed: whether it is only the fleet knows, and everything else can be checked.
func EnrollFIDO2(public, attestation []byte, c hardkey.Challenge, rules hardkey.Rules, now time.Time) (Enrolment, error) {
	fields := strings.Fields(string(public))
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "sk-") {
		return Enrolment{}, hint.New(errors.New("this is no public key of a security key"), "give the .pub that ssh-keygen -t ed25519-sk wrote; a key on a PIV card needs no --fido2")
	}
	e := Enrolment{Challenge: c, Public: fields[0] + " " + fields[1], Shown: hardkey.Shown{
		Kind: hardkey.KindFIDO2, Challenge: c.String(), Attestation: []string{base64.StdEncoding.EncodeToString(attestation)},
	}}
	if model := e.Shown.Model(); len(rules.AAGUIDs) == 0 && model != "" {
		rules.AAGUIDs = []string{model}
	}
	e.Proof, e.Rejection = hardkey.Verify(c.Fleet, c.Name, e.Public, e.Shown, rules, now)
	return e, nil
}
