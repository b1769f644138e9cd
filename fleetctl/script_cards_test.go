package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/policies/enrolment"
	"mayfly/policies/trust"
	"mayfly/testenv/softcard"
	"mayfly/testenv/softkey"
)

// scriptMakers make a script's cards and authenticators; an agent holds the keys of all of them.
type scriptMakers struct {
	piv, fido2 *softcard.Maker
	signers    []ssh.Signer
	serial     uint32
}

func newScriptMakers() (*scriptMakers, error) {
	m := &scriptMakers{serial: 7000}
	var err error
	if m.piv, err = softcard.NewMaker(hardkey.KindPIV, time.Now()); err != nil {
		return nil, err
	}
	m.fido2, err = softcard.NewMaker(hardkey.KindFIDO2, time.Now())
	return m, err
}

// hardware are the rules that take what the makers make.
func (m *scriptMakers) hardware() string {
	table := func(what string, i hardkey.Issuer) string {
		return fmt.Sprintf("[[%s]]\nname = %q\napplet = %q\ncertificate = %q\n", what, i.Name, i.Applet, i.Certificate)
	}
	return fmt.Sprintf("aaguids = [%q]\n", softcard.AAGUID()) + table("fido2_issuer", m.fido2.Issuer()) + table("test_issuer", m.piv.Issuer())
}

// earnest are rules without issuers of test cards.
func (m *scriptMakers) earnest() string {
	rules, _, _ := strings.Cut(m.hardware(), "[[test_issuer]]")
	return rules
}

// scriptCards makes a PIV card for each NAME[:SERIAL[:TOUCH]], or with "fido2" in place of the serial number an authenticator, and has each
// answer a challenge of the fleet in DIR: FILE.json is the request, FILE.pub its key, where FILE is the part of NAME before "=" (NAME itself
// if there is none) and the person's name the part after it. hardware.toml and earnest.toml are rules that take them.
func scriptCards(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: cards DIR [FILE=]NAME[:SERIAL[:TOUCH]]...")
	}
	m := ts.Value("makers").(*scriptMakers)
	d := state(ts.MkAbs(args[0]))
	f, err := d.fleet()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("hardware.toml"), []byte(m.hardware()), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("earnest.toml"), []byte(m.earnest()), 0o644))
	for _, arg := range args[1:] {
		words := strings.Split(arg, ":")
		file, name, ok := strings.Cut(words[0], "=")
		if !ok {
			name = file
		}
		c, err := d.makeChallenge(f.Name, name, time.Now())
		ts.Check(err)
		var signer ssh.Signer
		var shown hardkey.Shown
		if len(words) > 1 && words[1] == "fido2" {
			key, err := softkey.New(rand.Reader)
			ts.Check(err)
			signer = key.Signer(softkey.Always)
			shown, err = m.fido2.ShowFIDO2(key.Public(), c)
			ts.Check(err)
		} else {
			m.serial++
			plan := softcard.Plan{Type: ssh.KeyAlgoECDSA256, Serial: m.card(ts, words)}
			if len(words) > 2 {
				touch, err := strconv.ParseUint(words[2], 10, 8)
				ts.Check(err)
				plan.Touch = byte(touch)
			}
			key, err := m.piv.Make(plan)
			ts.Check(err)
			signer = key.Signer
			shown, err = key.Shown(c)
			ts.Check(err)
		}
		public := trust.FormatKey(signer.PublicKey())
		data, err := enrolment.New(c, public, shown).Marshal()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(file+".json"), data, 0o644))
		ts.Check(os.WriteFile(ts.MkAbs(file+".pub"), []byte(public+"\n"), 0o644))
		m.signers = append(m.signers, signer)
	}
	m.serve(ts)
}

// card is the serial number that was asked for, or the next.
func (m *scriptMakers) card(ts *testscript.TestScript, words []string) uint32 {
	if len(words) < 2 || words[1] == "" {
		return m.serial
	}
	n, err := strconv.ParseUint(words[1], 10, 32)
	ts.Check(err)
	return uint32(n)
}

// serve has an agent hold all keys until the script ends.
func (m *scriptMakers) serve(ts *testscript.TestScript) {
	dir, err := os.MkdirTemp("", "mf-cards-") // a socket's path is short
	ts.Check(err)
	l, err := softkey.Listen(filepath.Join(dir, "s"))
	ts.Check(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	holds := softkey.NewAgent(slices.Clone(m.signers)...) // a later command gives more
	go func() { done <- holds.Serve(ctx, l) }()
	ts.Setenv("SSH_AUTH_SOCK", filepath.Join(dir, "s"))
	ts.Defer(func() {
		stop()
		<-done
		os.RemoveAll(dir)
	})
}
