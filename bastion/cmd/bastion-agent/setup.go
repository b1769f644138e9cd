package main

import (
	"context"
	"fmt"
	"time"

	"mayfly/bastion/card"
	"mayfly/internal/command"
)

const setupHelp = `It makes a key on a PIV card (a YubiKey), and the card fit to keep it:

  - new PIN and PUK, with few tries: after 5 wrong PINs and 3 wrong PUKs nothing opens the card's keys again, and they are gone for good.
    A PIN and a PUK that are not the factory's any more are kept, with their tries. Where a key is on the card already and one of the two
    is the factory's, only that one is set: setting the tries would make the other the factory's for a moment.
  - a random management key, which the card keeps under the PIN
  - a key that the card makes itself and nobody can take out, in slot 9a: each signature takes a touch, and the PIN once
  - a certificate of the key by itself, so that other programs (OpenSC, ssh with PKCS11Provider) find it

It shows what it will do and asks first. Then it has the key sign a challenge and its certificate (touch it, twice), and holds the card's
attestation against what fleets ask: only a key that a fleet would take is done.

Keys are of type p256 if --type does not say another: every program that reads cards knows it. p384 is larger and slower; ed25519 takes
firmware 5.7, and few other programs read it from a card.

A key that is there is never overwritten, unless a flag says what it destroys: --destroy-key-in-slot-9a (or the slot that --slot names)
that one; --reset-and-destroy-all-piv-keys all keys, PIN and PUK of the PIV applet (FIDO and OpenPGP on the same card stay).

It asks on the terminal. For scripts, --pin-file and --puk-file name files of mode 0600, and --yes agrees to what it shows. An interruption
leaves no key that could be used with a PIN that others know, but for one that could be before: that one is named. Running it again goes on
from there.

  bastion-agent setup
  bastion-agent setup --type ed25519 --slot 82`

var setupVerb = command.Verb{
	Name:    "setup",
	Args:    "[--slot SLOT] [--type p256|p384|ed25519] [--serial NUMBER] [flags]",
	Summary: "make a key on a card, and the card fit to keep it",
	Help:    setupHelp,
	Run:     setup,
}

func setup(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	which := fs.String("slot", card.SlotAuthentication.String(), "`slot` for the key: 9a, or 82 to 95")
	kind := fs.String("type", string(card.DefaultAlgorithm), "`type` of key: p256, p384 or ed25519")
	serial := fs.Uint("serial", 0, "serial `number` of the card, if there are several")
	floor := fs.String("min-firmware", minFirmware, "`version` that the fleet asks for")
	pinFile := fs.String("pin-file", "", "`file` with the PIN: the new one, or the one that is kept")
	pukFile := fs.String("puk-file", "", "`file` with the new PUK")
	reset := fs.Bool("reset-and-destroy-all-piv-keys", false, "start anew: all keys, PIN and PUK of the PIV applet are gone")
	yes := fs.Bool("yes", false, "agree to what is shown, for scripts")
	issuers := issuerFlag(fs)
	output := fs.String("o", "text", "output `form`: text or json")
	destroy := map[card.Slot]*bool{}
	for _, s := range card.Slots() {
		destroy[s] = fs.Bool("destroy-key-in-slot-"+s.String(), false, "make the new key where there is one, which is gone then")
	}
	if err := c.Parse(fs); err != nil {
		return err
	}
	plan := card.Plan{ResetAll: *reset}
	var err error
	if plan.Slot, err = card.ParseSlot(*which); err != nil {
		return command.Usagef("--slot: %v", err)
	}
	if plan.Algorithm, err = card.ParseAlgorithm(*kind); err != nil {
		return command.Usagef("--type: %v", err)
	}
	if plan.Floor, err = card.ParseVersion(*floor); err != nil {
		return command.Usagef("--min-firmware: %v", err)
	}
	if plan.Serial, err = serialOf(*serial); err != nil {
		return err
	}
	for s, set := range destroy {
		if *set && s != plan.Slot {
			return command.Usagef("--destroy-key-in-slot-%s, and the new key goes to slot %s", s, plan.Slot)
		}
	}
	plan.DestroyKey = *destroy[plan.Slot]
	switch {
	case fs.NArg() > 0:
		return command.Usagef("setup takes no words, got %q", fs.Arg(0))
	case *output != "text" && *output != "json":
		return command.Usagef("-o %s: want text or json", *output)
	case plan.DestroyKey && plan.ResetAll:
		return command.Usagef("--reset-and-destroy-all-piv-keys destroys the key in slot %s as well: give one of the two", plan.Slot)
	}
	if plan.Rules, err = rules(*floor, *issuers); err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	who := &person{out: c.Stderr, pinFile: *pinFile, pukFile: *pukFile, yes: *yes, read: readTerminal}
	made, err := card.Setup(ctx, reach(), who, plan, time.Now())
	if err != nil {
		return err
	}
	if *output == "json" {
		return encode(c.Stdout, made)
	}
	if made.Proof.Test {
		who.Say(fmt.Sprintf("its attestation is by %s, a TEST issuer: this is a virtual card, and no key of it is safe", made.Proof.Issuer))
	}
	who.Say(fmt.Sprintf("card %d, slot %s: the key is made, attested by %s, and works. Next: bastion-agent enroll --challenge FILE", made.Serial, made.Slot, made.Proof.Issuer))
	_, err = fmt.Fprintln(c.Stdout, made.Public)
	return err
}

// serialOf is a serial number from the command line.
func serialOf(n uint) (uint32, error) {
	if uint64(n) > 1<<32-1 {
		return 0, command.Usagef("--serial %d: no card has that", n)
	}
	return uint32(n), nil
}
