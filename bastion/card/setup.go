package card

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/internal/hint"
)

// Tries that a card gets: enough for a person, too few for a thief.
const (
	pinTries = 5
	pukTries = 3
)

const kindSetup = "mayfly-card-setup/1"

// Person is who sits before the card.
type Person interface {
	// Secret asks for a secret. A new one is asked for twice by whoever can mistype it.
	Secret(ctx context.Context, ask Ask) (string, error)
	// Agree shows what will be done, and ends with an error where the person does not want it.
	Agree(ctx context.Context, text string) error
	Say(text string)
}

// Ask is what a person is asked for.
type Ask struct {
	Kind string // "PIN" or "PUK"
	New  bool
	Text string
}

// Plan is what a card shall become.
type Plan struct {
	Serial     uint32 // 0: the only card there is
	Slot       Slot
	Algorithm  Algorithm // "": DefaultAlgorithm
	Floor      Version   // of firmware
	DestroyKey bool      // that is in the slot
	ResetAll   bool      // destroys all keys of the PIV applet, PIN and PUK
	Rules      hardkey.Rules
}

// DefaultAlgorithm is what every program that reads PIV cards knows; Ed25519 on cards is known to few.
const DefaultAlgorithm = P256

// Made is what Setup came to.
type Made struct {
	Kind        string        `json:"kind"`
	Serial      uint32        `json:"serial"`
	Firmware    string        `json:"firmware"`
	Slot        string        `json:"slot"`
	Type        Algorithm     `json:"type"`
	Public      string        `json:"public"`
	Fingerprint string        `json:"fingerprint"`
	Proof       hardkey.Proof `json:"proof"`
}

// setup is one run of Setup.
type setup struct {
	Plan
	person Person
	now    time.Time

	token   Token
	serial  uint32
	secrets Secrets
	keys    []Slot // that hold one
	guarded []Slot // those of them that take the PIN
	finish  bool   // the key is made, and lacks its certificate
	retries bool   // the tries are set, with PIN and PUK
	renew   struct{ pin, puk bool }
	factory struct{ pin, puk bool } // in force, as far as is known

	pin            string // in force
	newPIN, newPUK string
	management     []byte
}

// Setup makes a key on a card, and the card fit to keep it. The order is such that wherever it ends no key can be used with a PIN that
// others know that could not be before: the secrets are set before a key is made, and a second run goes on from any point. A key that lay
// open when it began, and still does when it ends early, is named.
func Setup(ctx context.Context, reach Reach, person Person, plan Plan, now time.Time) (Made, error) {
	if plan.Algorithm == "" {
		plan.Algorithm = DefaultAlgorithm
	}
	s := &setup{Plan: plan, person: person, now: now}
	defer s.close()
	if err := s.look(ctx, reach); err != nil {
		return Made{}, err
	}
	if err := s.refuse(); err != nil {
		return Made{}, command.Refuse(err)
	}
	if err := person.Agree(ctx, s.text()); err != nil {
		return Made{}, err
	}
	if err := s.ask(ctx); err != nil {
		return Made{}, err
	}
	made, err := s.make(ctx)
	if err != nil {
		return Made{}, s.interrupted(err)
	}
	return made, nil
}

func (s *setup) close() {
	if s.token != nil {
		s.token.Close()
	}
	clear(s.management)
}

// look finds out what the card is, and changes nothing.
func (s *setup) look(ctx context.Context, reach Reach) error {
	t, reader, err := Find(ctx, reach, s.Serial)
	if err != nil {
		return err
	}
	s.token = t
	if s.serial, err = t.Serial(); err != nil {
		return err
	}
	if !t.Firmware().Before(firmwareMetadata) {
		if err := t.Close(); err != nil {
			return err
		}
		if s.secrets, err = reach.Secrets(ctx, reader.Name); err != nil {
			return err
		}
		if s.token, err = reach.Open(ctx, reader.Name); err != nil {
			return err
		}
		if again, err := s.token.Serial(); err != nil || again != s.serial {
			return errors.Join(fault(Removed, fmt.Errorf("card %d was taken out", s.serial)), err)
		}
	}
	for _, slot := range all() {
		switch info, err := read(s.token, slot); {
		case err == nil, FaultOf(err) == Garbage: // something is there
			s.keys = append(s.keys, slot)
			if info.takesPIN() {
				s.guarded = append(s.guarded, slot)
			}
		case FaultOf(err) == NoKey:
		default:
			return err
		}
	}
	pin, puk := s.secrets.PIN.Factory, s.secrets.PUK.Factory
	s.factory.pin, s.factory.puk = pin, puk
	// To set the tries makes PIN and PUK the factory's for a moment. Where a key is there that opens only what both are already.
	s.retries = s.ResetAll || pin && puk || (pin || puk) && len(s.guarded) == 0
	s.renew.pin, s.renew.puk = s.retries || pin, s.retries || puk
	return nil
}

// takesPIN reports whether a PIN stands before the key, as far as the card says.
func (i Info) takesPIN() bool { return i.PINPolicy != Never }

// exposed names the slots whose keys can be used by whoever has the card, and with what; "" where there are none.
func exposed(slots []Slot, pin, puk bool) string {
	if len(slots) == 0 || !pin && !puk {
		return ""
	}
	with := "the factory's PIN"
	if !pin {
		with = "a PIN that the factory's PUK sets"
	}
	names := make([]string, len(slots))
	for i, s := range slots {
		names[i] = s.String()
	}
	what := "the key in slot "
	if len(slots) > 1 {
		what = "the keys in slots "
	}
	return what + strings.Join(names, ", ") + " can be used with " + with + ", which everybody knows"
}

// has reports whether there is a key in the slot.
func (s *setup) has(slot Slot) bool {
	for _, k := range s.keys {
		if k == slot {
			return true
		}
	}
	return false
}

// unfinished reports whether the slot's key is one as this makes them, but for the certificate.
func (s *setup) unfinished() bool {
	info, err := read(s.token, s.Slot)
	if err != nil || info.Origin != Generated || info.Touch != Always || info.PINPolicy != Once || info.Algorithm != s.Algorithm {
		return false
	}
	_, err = s.token.Certificate(s.Slot)
	return FaultOf(err) == NoKey
}

// refuse says what stands against the plan.
func (s *setup) refuse() error {
	fw := s.token.Firmware()
	flag := "--destroy-key-in-slot-" + s.Slot.String()
	switch {
	case fw.Before(s.Floor):
		return hint.New(fmt.Errorf("the card has firmware %s, and %s is the least: before it, who holds the card for a while can find its keys out, and no fleet has to take them", fw, s.Floor),
			"firmware cannot be changed: take a newer card; --min-firmware lowers the floor, for a fleet whose policy does as well")
	case fw.Before(firmwareMetadata):
		return hint.New(fmt.Errorf("firmware %s does not say whether PIN and PUK are still the factory's", fw), "take a newer card")
	case s.Algorithm == Ed25519 && fw.Before(firmwareEd25519):
		return hint.New(fmt.Errorf("firmware %s makes no Ed25519 keys: %s does", fw, firmwareEd25519), "--type p256")
	case !s.secrets.Known:
		return hint.New(errors.New("the card does not say whether PIN and PUK are still the factory's"), "bastion-agent doctor looks at it")
	case s.ResetAll:
		return nil
	case s.has(s.Slot) && !s.DestroyKey && s.unfinished():
		s.finish = true
	case s.has(s.Slot) && !s.DestroyKey:
		return hint.New(fmt.Errorf("there is a key in slot %s, and it would be gone for good", s.Slot), "bastion-agent keys shows it (a setup that was interrupted at its very end has made it, and is done); %s destroys it; --slot takes another one", flag)
	case !s.has(s.Slot) && s.DestroyKey:
		return hint.New(fmt.Errorf("there is no key in slot %s to destroy", s.Slot), "leave %s out", flag)
	}
	switch {
	case s.secrets.PIN.Left == 0:
		return hint.New(errors.New("the PIN is blocked"), "%s; or start anew with --reset-and-destroy-all-piv-keys", mends[BlockedPIN])
	case s.secrets.PUK.Left == 0 && !(s.retries && s.secrets.PUK.Factory):
		return hint.New(errors.New("the PUK is blocked: a forgotten PIN could not be set anew"), "start anew with --reset-and-destroy-all-piv-keys")
	}
	return nil
}

// text is what the person agrees to.
func (s *setup) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Card %d, firmware %s:\n", s.serial, s.token.Firmware())
	if s.ResetAll {
		fmt.Fprintf(&b, "  - DESTROYS all %d keys of its PIV applet, and their certificates (not those of FIDO or OpenPGP)\n", len(s.keys))
	}
	s.secretsText(&b)
	if s.secrets.Management || s.ResetAll {
		b.WriteString("  - gets a random management key, which nobody needs to know: the card keeps it under the PIN\n")
	}
	switch {
	case s.finish:
		fmt.Fprintf(&b, "  - keeps the key in slot %s, which is as setup makes them and lacks its certificate, and gives it that\n", s.Slot)
	case s.DestroyKey && !s.ResetAll:
		fmt.Fprintf(&b, "  - DESTROYS the key in slot %s\n", s.Slot)
		fallthrough
	default:
		fmt.Fprintf(&b, "  - makes a new key (%s) in slot %s, which cannot leave the card, and signs only when touched, each time, with the PIN once\n", s.Algorithm, s.Slot)
	}
	return b.String()
}

// secretsText is what becomes of PIN and PUK.
func (s *setup) secretsText(b *strings.Builder) {
	pins, puks := s.secrets.PIN.Total, s.secrets.PUK.Total
	if s.retries {
		pins, puks = pinTries, pukTries
	}
	switch {
	case s.renew.pin && s.renew.puk:
		fmt.Fprintf(b, "  - gets a new PIN with %d tries and a new PUK with %d\n", pins, puks)
	case s.renew.pin:
		fmt.Fprintf(b, "  - gets a new PIN (%d tries) and keeps its PUK (%d tries), which is not the factory's\n", pins, puks)
	case s.renew.puk:
		fmt.Fprintf(b, "  - keeps its PIN (%d tries), which is not the factory's, and gets a new PUK (%d tries)\n", pins, puks)
	default:
		fmt.Fprintf(b, "  - keeps its PIN (%d tries) and its PUK (%d tries), which are not the factory's\n", pins, puks)
		return
	}
	fmt.Fprintf(b, "    After %d wrong PINs the PIN is blocked, and only the PUK sets a new one. After %d wrong PUKs nothing does: the card's keys are\n", pins, puks)
	b.WriteString("    gone for good, and all that is left is to reset it and make new ones. Keep the PUK where the card is not.\n")
	if what := exposed(s.guarded, s.factory.pin, s.factory.puk); what != "" {
		fmt.Fprintf(b, "    Until this is done %s.\n", what)
	}
}

// ask asks for the secrets that are needed, before anything is changed.
func (s *setup) ask(ctx context.Context) (err error) {
	s.pin = factoryPIN
	if !s.secrets.PIN.Factory && !s.ResetAll {
		if s.pin, err = askPIN(ctx, s.person, s.secrets.PIN.Left, fmt.Sprintf("PIN of card %d", s.serial)); err != nil {
			return err
		}
		if err := s.token.VerifyPIN(s.pin); err != nil {
			return err
		}
	}
	if s.renew.pin {
		if s.newPIN, err = s.person.Secret(ctx, Ask{Kind: "PIN", New: true, Text: fmt.Sprintf("new PIN for card %d, %d to %d characters", s.serial, minPIN, maxPIN)}); err != nil {
			return err
		}
		if err := CheckPIN(s.newPIN); err != nil {
			return err
		}
	} else {
		s.newPIN = s.pin
	}
	if !s.renew.puk {
		return nil
	}
	if s.newPUK, err = s.person.Secret(ctx, Ask{Kind: "PUK", New: true, Text: fmt.Sprintf("new PUK for card %d, %d characters", s.serial, lenPUK)}); err != nil {
		return err
	}
	return CheckPUK(s.newPUK, s.newPIN)
}

// make does what was agreed to, and stops between two steps where ctx has ended.
func (s *setup) make(ctx context.Context) (made Made, err error) {
	var public crypto.PublicKey
	for _, step := range []struct {
		needed bool
		do     func() error
	}{
		{s.ResetAll, s.reset},
		{true, s.unlock},
		{s.renew.pin || s.renew.puk, s.secure},
		{s.secrets.Management || s.ResetAll, s.manage},
		{true, func() error { public, err = s.key(); return err }},
		{true, func() error { made, err = s.prove(public); return err }},
	} {
		if !step.needed {
			continue
		}
		if err := ctx.Err(); err != nil {
			return Made{}, err
		}
		if err := step.do(); err != nil {
			return Made{}, err
		}
	}
	return made, nil
}

// reset makes the applet what it was in the factory.
func (s *setup) reset() error {
	if err := s.token.Reset(); err != nil {
		return err
	}
	s.pin, s.secrets.Management = factoryPIN, true
	s.guarded = nil
	s.person.Say("all that was in the PIV applet is gone")
	return nil
}

// unlock finds the management key.
func (s *setup) unlock() error {
	if s.secrets.Management {
		s.management = append([]byte(nil), factoryManagement...)
		return nil
	}
	key, err := s.token.StoredManagement(s.pin)
	if err != nil {
		return err
	}
	if key == nil {
		return hint.New(errors.New("the card's management key is not the factory's, and not kept under the PIN"),
			"if nobody knows it: --reset-and-destroy-all-piv-keys; if you do: ykman piv access change-management-key --protect keeps it under the PIN")
	}
	s.management = key
	return nil
}

// secure sets tries, PIN and PUK, or those of them that may and need be set.
func (s *setup) secure() error {
	if s.retries {
		s.factory.pin, s.factory.puk = true, true
		if err := s.token.SetTries(s.management, s.pin, pinTries, pukTries); err != nil {
			return err
		}
	}
	if s.renew.pin {
		if err := s.token.SetPIN(factoryPIN, s.newPIN); err != nil {
			return err
		}
		s.pin, s.factory.pin = s.newPIN, false
	}
	if s.renew.puk {
		if err := s.token.SetPUK(factoryPUK, s.newPUK); err != nil {
			return err
		}
		s.factory.puk = false
	}
	s.person.Say(map[bool]string{true: "PIN, PUK and their tries are set", false: "what was the factory's of PIN and PUK is set"}[s.retries])
	return nil
}

// manage sets a random management key. It is kept on the card before it is the card's: a run that ends between the two leaves the
// factory's in force, and a second one keeps another.
func (s *setup) manage() error {
	key := make([]byte, managementBytes)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	if err := s.token.StoreManagement(s.management, s.pin, key); err != nil {
		return err
	}
	if err := s.token.SetManagement(s.management, key); err != nil {
		return err
	}
	s.management = key
	s.person.Say("the management key is random, and kept under the PIN")
	return nil
}

// key makes the key.
func (s *setup) key() (crypto.PublicKey, error) {
	if !s.finish {
		if _, err := s.token.Generate(s.management, s.Slot, s.Algorithm); err != nil {
			return nil, err
		}
		s.person.Say(fmt.Sprintf("a key is in slot %s", s.Slot))
	}
	info, err := read(s.token, s.Slot)
	if err != nil {
		return nil, err
	}
	if info.Touch != Always || info.PINPolicy != Once || info.Origin != Generated || info.Algorithm != s.Algorithm {
		return nil, fault(Garbage, fmt.Errorf("the card made a key of its own liking: type %s, touch %s, PIN %s, %s", info.Algorithm, info.Touch, info.PINPolicy, info.Origin))
	}
	return info.Public, nil
}

// prove has the key sign its certificate and a trial challenge, and holds the attestation against what a fleet would ask.
func (s *setup) prove(public crypto.PublicKey) (Made, error) {
	key, err := SSHKey(public)
	if err != nil {
		return Made{}, err
	}
	pin := func() (string, error) { return s.pin, nil }
	s.person.Say("touch the key while it blinks: it signs a challenge, to prove itself")
	shown, err := show(s.token, s.Slot, public, trial(s.now), pin)
	if err != nil {
		return Made{}, err
	}
	proof, rejection := hardkey.Verify(trialName, trialName, bare(key), shown, s.Rules, s.now)
	if rejection != nil {
		return Made{}, hint.New(fmt.Errorf("no fleet would take this key: %w (%s)", rejection, rejection.Reason), "%s", hint.Of(rejection))
	}
	s.person.Say("touch it once more: it signs its certificate, by which other programs find it")
	der, err := selfSigned(s.token, s.Slot, public, s.serial, pin, s.now)
	if err != nil {
		return Made{}, err
	}
	if err := s.token.SetCertificate(s.management, s.Slot, der); err != nil {
		return Made{}, err
	}
	return Made{
		Kind: kindSetup, Serial: s.serial, Firmware: s.token.Firmware().String(), Slot: s.Slot.String(), Type: s.Algorithm,
		Public: line(key, comment(s.serial, s.Slot)), Fingerprint: ssh.FingerprintSHA256(key), Proof: proof,
	}, nil
}

// interrupted says what an end in the middle leaves, as far as is known: the card may have done the last thing it was asked.
func (s *setup) interrupted(err error) error {
	mend := hint.Of(err)
	if mend != "" {
		mend += "; "
	}
	if what := exposed(s.guarded, s.factory.pin, s.factory.puk); what != "" {
		return hint.New(fmt.Errorf("%w; and until the setup is done %s", err, what), "%srun the same again at once, and it goes on from here", mend)
	}
	return hint.New(err, "%sno key on the card can be used with a PIN that others know: run the same again, and it goes on from here", mend)
}
