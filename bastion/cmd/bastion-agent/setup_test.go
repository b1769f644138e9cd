//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/policies/enrolment"
	"mayfly/testenv/debian"
	"mayfly/testenv/pivcard"
)

// challenge is a fleet's, made now.
func (l *lab) challenge() string {
	return l.write("challenge", []byte("mayfly-challenge/1 test anna 00112233445566778899aabbccddeeff "+time.Now().UTC().Format(time.RFC3339)+"\n"), 0o644)
}

// enrolls are the arguments of an enrolment in a script.
func (l *lab) enrolls(more ...string) []string {
	l.t.Helper()
	args := append([]string{"enroll", "--challenge", l.challenge(), "--pin-file", l.write("pin", []byte(goodPIN), 0o600)}, l.issuers()...)
	return append(args, more...)
}

// TestSetupKinds makes keys of each type and in other slots, destroys one when told to, and everything when told to.
func TestSetupKinds(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	for _, tt := range []struct{ kind, slot, want string }{
		{"p256", "9a", "ecdsa-sha2-nistp256 "},
		{"p384", "82", "ecdsa-sha2-nistp384 "},
		{"ed25519", "95", "ssh-ed25519 "},
	} {
		public := l.want(0, nil, l.setUp("--type", tt.kind, "--slot", tt.slot)...)
		if !strings.HasPrefix(public, tt.want) {
			t.Errorf("%s: got %q", tt.kind, public)
		}
		request, err := enrolment.Parse([]byte(l.want(0, []string{"proved: made on card"}, l.enrolls("--slot", tt.slot)...)))
		if err != nil || request.Name != "anna" || request.Fleet != "test" || !strings.HasPrefix(public, request.Public) {
			t.Errorf("%s: got %+v, %v", tt.kind, request, err)
		}
	}
	before := card.Show()
	if left := before.PINLeft; left != 5 || before.PUKLeft != 3 || before.Management != "aes192, touch never" {
		t.Errorf("got %+v", before)
	}
	l.want(0, []string{"keeps its PIN (5 tries)", "DESTROYS the key in slot 9a"}, l.setUp("--destroy-key-in-slot-9a")...)
	after := card.Show()
	if after.Slots["9a"].Public == before.Slots["9a"].Public || after.Slots["82"] != before.Slots["82"] || after.Slots["95"] != before.Slots["95"] {
		t.Errorf("got %+v after %+v: want 9a alone made anew", after.Slots, before.Slots)
	}
	l.want(0, []string{"DESTROYS all 3 keys"}, l.setUp("--reset-and-destroy-all-piv-keys", "--slot", "83")...)
	if slots := card.Show().Slots; len(slots) != 2 { // 83, and the card's own f9
		t.Errorf("got %+v, want 83 alone", slots)
	}
	l.want(0, []string{"failing: 0, warnings: 0"}, "doctor")
}

// TestSetupRefusals: nothing is changed by what is refused.
func TestSetupRefusals(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{Firmware: pivcard.Firmware{Major: 5, Minor: 4, Patch: 3}})
	l.want(3, []string{"the card has firmware 5.4.3, and 5.7.0 is the least", "--min-firmware lowers the floor"}, l.setUp()...)
	l.want(1, []string{"fail  firmware", "5.4.3"}, "doctor")
	l.want(3, []string{"makes no Ed25519 keys"}, l.setUp("--min-firmware", "5.4.0", "--type", "ed25519")...)
	l.want(1, []string{"the first that anybody tries"}, append(l.setUp("--min-firmware", "5.4.0"), "--pin-file", l.write("bad", []byte("123456"), 0o600))...)
	l.want(1, []string{"lets others at it"}, append(l.setUp("--min-firmware", "5.4.0"), "--pin-file", l.write("open", []byte(goodPIN), 0o644))...)
	l.want(1, []string{"no card has the serial number 1"}, l.setUp("--serial", "1")...)
	args := []string{"setup", "--pin-file", filepath.Join(l.dir, "pin"), "--puk-file", filepath.Join(l.dir, "puk"), "--min-firmware", "5.4.0"}
	l.want(1, []string{"After 5 wrong PINs", "without a terminal, --yes agrees"}, args...)
	if s := card.Show(); len(s.Slots) != 1 || s.PINLeft != 3 || s.PUKLeft != 3 {
		t.Errorf("the card has changed: %+v", s)
	}
	l.want(0, nil, l.setUp("--min-firmware", "5.4.0")...)
	l.want(3, []string{"attestation_firmware"}, l.enrolls()...)
}

// TestEnrollRefusals has the cards show what no fleet takes: each is refused with the fleet's own reason, and nothing is written.
func TestEnrollRefusals(t *testing.T) {
	l := newLab(t, 1)
	software, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	card := l.card(0, pivcard.Config{})
	l.want(0, nil, l.setUp()...)
	for _, tt := range []struct {
		name   string
		change func() error
		code   int
		words  []string
	}{
		{"touch never", func() error {
			_, err := card.Generate(pivcard.KeyPlan{Slot: "9a", Algorithm: "p256", Touch: "never", PIN: "once"})
			return err
		}, 3, []string{"attestation_touch_never"}},
		{"touch cached", func() error {
			_, err := card.Generate(pivcard.KeyPlan{Slot: "9a", Algorithm: "p256", Touch: "cached", PIN: "once"})
			return err
		}, 3, []string{"attestation_touch_cached"}},
		{"PIN never", func() error {
			_, err := card.Generate(pivcard.KeyPlan{Slot: "9a", Algorithm: "p256", Touch: "always", PIN: "never"})
			return err
		}, 3, []string{"attestation_pin_policy"}},
		{"imported", func() error {
			_, err := card.Import(pivcard.KeyPlan{Slot: "9a", Touch: "always", PIN: "once"}, software)
			return err
		}, 3, []string{"made elsewhere and imported", "attestation_imported"}},
		{"FIDO applet's chain", func() error {
			if _, err := card.Generate(pivcard.KeyPlan{Slot: "9a", Algorithm: "p256", Touch: "always", PIN: "once"}); err != nil {
				return err
			}
			return card.Replace(l.issuer, pivcard.ChainFIDO)
		}, 3, []string{"attestation_chain"}},
		{"extension missing", func() error {
			if err := card.Replace(l.issuer, pivcard.ChainPIV); err != nil {
				return err
			}
			return card.SetFaults(pivcard.Faults{Without: []string{"policy"}})
		}, 3, []string{"attestation_extension_missing"}},
		{"other slot", func() error { return card.SetFaults(pivcard.Faults{Slot: "9c"}) }, 3, []string{"attestation_slot"}},
		{"no key", func() error { return card.SetFaults(pivcard.Faults{}) }, 1, []string{"there is no key in slot 84", "bastion-agent setup"}},
	} {
		if err := tt.change(); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(l.dir, "request")
		args := l.enrolls("--out", out)
		if tt.name == "no key" {
			args = append(args, "--slot", "84")
		}
		l.want(tt.code, append(tt.words, "hint: "), args...)
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a request was written", tt.name)
		}
	}
	if err := card.SetFaults(pivcard.Faults{Slot: "9c"}); err != nil {
		t.Fatal(err)
	}
	if _, err := enrolment.Parse([]byte(l.want(0, []string{"attestation_slot"}, l.enrolls("--write-refused")...))); err != nil {
		t.Error(err)
	}
}

// TestPINBlocks types wrong PINs until nothing goes any more, and has the doctor say so.
func TestPINBlocks(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	l.want(0, nil, l.setUp()...)
	wrong := append(l.enrolls(), "--pin-file", l.write("wrong", []byte("000111"), 0o600))
	for _, left := range []string{"4 tries left", "3 tries left", "2 tries left", "1 try left: a wrong one now blocks it"} {
		l.want(1, []string{"the card did not take the PIN: " + left}, wrong...)
	}
	stdout, _, code := l.run("doctor")
	if code != 0 || !strings.Contains(stdout, "1 of 5 tries left") {
		t.Errorf("doctor: got exit code %d\n%s", code, stdout)
	}
	l.want(1, []string{"This is the LAST try: a wrong PIN now blocks the card.", "that was the last try: it is blocked", "unblock"}, wrong...)
	l.want(1, []string{"it is blocked", "unblock"}, l.enrolls()...)
	l.want(1, []string{"the PIN is blocked"}, "doctor")
	l.want(3, []string{"the PIN is blocked", "--reset-and-destroy-all-piv-keys"}, l.setUp("--slot", "85")...)
	if s := card.Show(); s.PINLeft != 0 || s.PUKLeft != 3 {
		t.Errorf("got %d and %d tries left, want 0 and 3", s.PINLeft, s.PUKLeft)
	}
	l.want(0, []string{"DESTROYS all 1 keys"}, l.setUp("--reset-and-destroy-all-piv-keys")...)
	l.want(0, nil, l.enrolls()...)
}

// TestNoTouch refuses the touch.
func TestNoTouch(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	if err := card.Touch.SetMode(pivcard.TouchRefused); err != nil {
		t.Fatal(err)
	}
	l.want(1, []string{"was not touched in time", "run the same again"}, l.setUp()...)
	if err := card.Touch.SetMode(pivcard.TouchAuto); err != nil {
		t.Fatal(err)
	}
	l.want(0, []string{"keeps the key in slot 9a, which is as setup makes them and lacks its certificate"}, l.setUp()...)
	if err := card.Touch.SetMode(pivcard.TouchRefused); err != nil {
		t.Fatal(err)
	}
	l.want(1, []string{"was not touched in time"}, l.enrolls()...)
}

// TestOtherProgramsSeeTheKey has OpenSC and, through it, ssh-keygen find the key by its certificate.
func TestOtherProgramsSeeTheKey(t *testing.T) {
	modules, err := filepath.Glob("/usr/lib/*-linux-gnu/opensc-pkcs11.so")
	if err != nil || len(modules) == 0 {
		t.Skip("needs opensc-pkcs11")
	}
	if missing := debian.Missing([]debian.Need{{Name: "pkcs11-tool", Package: "opensc"}, {Name: "ssh-keygen", Package: "openssh-client"}}); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	l := newLab(t, 1)
	l.card(0, pivcard.Config{})
	public := strings.Fields(l.want(0, nil, l.setUp()...))
	for _, args := range [][]string{
		{"ssh-keygen", "-D", modules[0]},
		{"pkcs11-tool", "--module", modules[0], "--list-objects", "--type", "cert"},
	} {
		out, err := l.daemon.Command(l.ctx, args[0], args[1:]...).Output()
		want := public[1]
		if args[0] == "pkcs11-tool" {
			want = "slot 9a"
		}
		if exit, ok := err.(*exec.ExitError); ok {
			t.Errorf("%q: %v: %s", args, err, exit.Stderr)
		} else if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: got %v, %s, want %q", args, err, out, want)
		}
	}
}

// TestSetupBesideAnotherKey pulls a card with another program's key, whose PUK is the factory's, when its PUK is about to be set: the
// key takes the person's PIN alone, and what lies open is named.
func TestSetupBesideAnotherKey(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	l.pull(0)
	if _, err := card.Generate(pivcard.KeyPlan{Slot: "9c", Algorithm: "p256", PIN: "once", Touch: "never"}); err != nil {
		t.Fatal(err)
	}
	send := func(ins, reference byte, secrets string) uint16 {
		answer := card.Transmit(append([]byte{0, ins, 0, reference, byte(len(secrets))}, secrets...))
		return binary.BigEndian.Uint16(answer[len(answer)-2:])
	}
	const selectPIV = "\xa0\x00\x00\x03\x08"
	card.Transmit(append([]byte{0, 0xa4, 4, 0, byte(len(selectPIV))}, selectPIV...))
	if status := send(0x24, 0x80, "123456\xff\xff"+goodPIN+"\xff\xff"); status != 0x9000 {
		t.Fatalf("setting the PIN: %04x", status)
	}
	l.insert(0, hostile(func(apdu []byte) []byte {
		if apdu[1] == 0x24 && apdu[3] == 0x81 { // the PUK's turn, or what comes in place of it
			return []byte{0x6f, 0x00}
		}
		return card.Transmit(apdu)
	}))
	l.want(1, []string{"keeps its PIN (3 tries)", "gets a new PUK", "the key in slot 9c can be used with a PIN that the factory's PUK sets", "run the same again at once"}, l.setUp()...)
	l.want(1, []string{"the PUK is the factory's: the key in slot 9c can be used", "bastion-agent setup sets one: at once"}, "doctor")
	l.pull(0)
	card.Transmit(append([]byte{0, 0xa4, 4, 0, byte(len(selectPIV))}, selectPIV...))
	if status := send(0x20, 0x80, "123456\xff\xff"); status == 0x9000 {
		t.Error("the factory's PIN opens the card")
	}
	l.insert(0, card.Serve)
	l.want(0, []string{"the key is made"}, l.setUp()...)
	l.want(0, []string{"failing: 0"}, "doctor")
}
