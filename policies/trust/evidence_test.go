package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/testenv/softcard"
	"mayfly/testenv/softkey"
)

var enrolled = time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)

func challenge(name string) hardkey.Challenge {
	return hardkey.NewChallenge("lab", name, [hardkey.NonceBytes]byte{1, 2, 3}, enrolled)
}

func maker(t testing.TB, applet string) *softcard.Maker {
	t.Helper()
	m, err := softcard.NewMaker(applet, enrolled)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// withCard is a person whose key is in a PIV card.
func withCard(t testing.TB, m *softcard.Maker, name string, serial uint32, touch byte) Person {
	t.Helper()
	k, err := m.Make(softcard.Plan{Type: ssh.KeyAlgoECDSA256, Serial: serial, Touch: touch})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := k.Shown(challenge(name))
	if err != nil {
		t.Fatal(err)
	}
	return Person{Name: name, Keys: []string{k.Public()}, Shown: []hardkey.Shown{shown}}
}

// withSecurityKey is a person whose key is in a FIDO2 authenticator.
func withSecurityKey(t testing.TB, m *softcard.Maker, name string) Person {
	t.Helper()
	key, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := m.ShowFIDO2(key.Public(), challenge(name))
	if err != nil {
		t.Fatal(err)
	}
	return Person{Name: name, Keys: []string{FormatKey(key.Public())}, Shown: []hardkey.Shown{shown}}
}

// A test fleet takes cards of test issuers, and verifies what they show all the same, each time the file is read.
func TestCards(t *testing.T) {
	m, other := maker(t, hardkey.KindPIV), maker(t, hardkey.KindPIV)
	p := newPeople(t)
	p.Hardware.TestIssuers = []hardkey.Issuer{m.Issuer()}
	p.Approvers[1] = withCard(t, m, "bert", 7001, softcard.TouchAlways)
	p.Recovery.People[0] = withCard(t, m, "rosa", 7002, softcard.TouchAlways)
	good, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if proof, rejected := read.Prove(read.Approvers[1], 0); rejected != nil || proof.Serial != 7001 || !proof.Test || !proof.Made.Equal(enrolled) {
		t.Errorf("got %+v, %v", proof, rejected)
	}
	for _, tt := range []struct {
		name   string
		change func(*Trust)
		want   string
	}{
		{"another person's evidence", func(t *Trust) { t.Approvers[1].Name = "bart" }, hardkey.ChallengeDiffers},
		{"another fleet's", func(t *Trust) { t.Fleet = "lab2" }, hardkey.ChallengeDiffers},
		{"of another key", func(t *Trust) { t.Approvers[1].Keys = []string{line(p.bert)} }, hardkey.KeyDiffers},
		{"an issuer that nobody named", func(t *Trust) { t.Hardware.TestIssuers = []hardkey.Issuer{other.Issuer()} }, hardkey.Chain},
		{"in earnest", func(t *Trust) { t.Test = false }, "issuers of test cards"},
		{"in earnest, by nobody's issuer", func(t *Trust) {
			t.Test, t.Hardware.TestIssuers = false, nil
			t.Approvers, t.Threshold = t.Approvers[1:2], 1
		}, hardkey.Chain},
		{"touch policy cached", func(tr *Trust) { tr.Approvers[1] = withCard(t, m, "bert", 7001, softcard.TouchCached) }, hardkey.TouchCached},
		{"firmware", func(t *Trust) { t.Hardware.MinFirmware = "5.7.5" }, hardkey.Firmware},
		{"serial number denied", func(t *Trust) { t.Hardware.SerialsDeny = []uint32{7001} }, hardkey.SerialDenied},
		{"slot", func(t *Trust) { t.Hardware.Slots = []string{"82"} }, hardkey.Slot},
		{"PIN policy", func(t *Trust) { t.Hardware.PINPolicies = []string{"always"} }, hardkey.PINPolicy},
		{"a changed challenge", func(t *Trust) {
			s := &t.Approvers[1].Shown[0]
			s.Challenge = strings.Replace(s.Challenge, "15:00:00Z", "15:00:01Z", 1)
		}, hardkey.Signature},
		{"one card of two people", func(tr *Trust) { tr.Approvers[2] = withCard(t, m, "cleo", 7001, softcard.TouchAlways) },
			"the card with serial number 7001 is also approver bert's"},
		{"one card in two roles", func(tr *Trust) {
			tr.Recovery.People[0] = withCard(t, m, "bert", 7001, softcard.TouchAlways)
		}, "the card with serial number 7001 is also approver bert's"},
	} {
		changed, err := Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		tt.change(changed)
		if err := changed.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	// Two slots of one person's card are one voice, and are no harm.
	second := withCard(t, m, "bert", 7001, softcard.TouchAlways)
	bert := &read.Approvers[1]
	bert.Keys, bert.Shown = append(bert.Keys, second.Keys...), append(bert.Shown, second.Shown...)
	if err := read.Check(); err != nil {
		t.Errorf("two keys on one person's card: %v", err)
	}
}

// Evidence may not be left out on the way from one trust policy to the next, in a test fleet either.
func TestAdvanceEvidence(t *testing.T) {
	m := maker(t, hardkey.KindPIV)
	p := newPeople(t)
	p.Hardware.TestIssuers = []hardkey.Issuer{m.Issuer()}
	p.Approvers[1] = withCard(t, m, "bert", 7001, softcard.TouchAlways)
	for name, tt := range map[string]struct {
		change func(*Trust)
		want   string
	}{
		"dropped":                {func(t *Trust) { t.Approvers[1].Shown = nil }, LostEvidence},
		"dropped, under another": {func(t *Trust) { t.Approvers[1].Name, t.Approvers[1].Shown = "bart", nil }, LostEvidence},
		"dropped, to recovery": {func(t *Trust) {
			t.Recovery.People[0] = Person{Name: "rosa", Keys: t.Approvers[1].Keys}
			t.Approvers = slices.Delete(t.Approvers, 1, 2)
		}, LostEvidence},
		"shown anew": {func(tr *Trust) { tr.Approvers[1] = withCard(t, m, "bert", 7005, softcard.TouchAlways) }, ""},
		"kept":       {func(t *Trust) { t.Threshold = 1 }, ""},
	} {
		data, sigs := signed(t, p.next(t, tt.change), p.anna, p.cleo)
		if _, err := Advance(p.Trust, data, sigs); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// Rules for hardware are looked at where nobody shows anything as well: the name of an issuer stands in the record that is printed.
func TestHardwareRules(t *testing.T) {
	issuer := maker(t, hardkey.KindFIDO2).Issuer()
	for _, tt := range []struct {
		name   string
		change func(*Hardware)
		want   string
	}{
		{"none", func(*Hardware) {}, ""},
		{"an issuer", func(h *Hardware) { h.FIDO2Issuers = []hardkey.Issuer{issuer} }, ""},
		{"an issuer whose name writes lines", func(h *Hardware) {
			issuer := issuer
			issuer.Name = "x\nKEYS OF THE SIGNER\n  tickets SHA256:AAAA"
			h.FIDO2Issuers = []hardkey.Issuer{issuer}
		}, "hardware: fido2_issuer[0].name: "},
		{"a test issuer whose name writes on a terminal", func(h *Hardware) {
			issuer := issuer
			issuer.Name = "x\x1b[2J"
			h.TestIssuers = []hardkey.Issuer{issuer}
		}, "hardware: test_issuer[0].name: "},
		{"an unknown slot", func(h *Hardware) { h.Slots = []string{"f9"} }, "hardware: slots[0]: "},
		{"an unknown PIN policy", func(h *Hardware) { h.PINPolicies = []string{"sometimes"} }, "hardware: pin_policies[0]: "},
	} {
		p := newPeople(t)
		tt.change(&p.Hardware)
		if err := p.Check(); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A fleet that is no test never becomes one, where software keys would count, though all its approvers sign.
func TestAdvanceTest(t *testing.T) {
	p := newPeople(t)
	m := maker(t, hardkey.KindFIDO2)
	real := earnest(t, p)
	real.Hardware.FIDO2Issuers = []hardkey.Issuer{m.Issuer()}
	real.Recovery.People = []Person{withSecurityKey(t, m, "rosa")}
	real.Builders = []Person{withSecurityKey(t, m, "workshop")}
	var by []ssh.Signer
	real.Approvers = nil
	for _, name := range []string{"anna", "bert"} {
		key, err := softkey.New(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := m.ShowFIDO2(key.Public(), challenge(name))
		if err != nil {
			t.Fatal(err)
		}
		by = append(by, key.Signer(softkey.Always))
		real.Approvers = append(real.Approvers, Person{Name: name, Keys: []string{FormatKey(key.Public())}, Shown: []hardkey.Shown{shown}})
	}
	p.Trust = real
	data, sigs := signed(t, p.next(t, nil), by...)
	if _, err := Advance(real, data, sigs); err != nil {
		t.Fatalf("as it is: %v", err)
	}
	data, sigs = signed(t, p.next(t, func(t *Trust) { t.Test = true }), by...)
	var r *Refusal
	if c, err := Advance(real, data, sigs); !errors.As(err, &r) || r.Reason != OtherFleet || c != nil {
		t.Errorf("got %v, %v, want %s", c, err, OtherFleet)
	}
}

// plainKey is a key of a service.
func plainKey(t testing.TB) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return FormatKey(key)
}

// earnest is the trust policy of a fleet that is no test, with authenticators of a maker that its rules name.
func earnest(t testing.TB, p people) *Trust {
	t.Helper()
	m := maker(t, hardkey.KindFIDO2)
	e := *p.Trust
	e.Test = false
	e.Hardware.FIDO2Issuers, e.Hardware.AAGUIDs = []hardkey.Issuer{m.Issuer()}, []string{softcard.AAGUID()}
	e.Approvers = []Person{withSecurityKey(t, m, "anna"), withSecurityKey(t, m, "bert")}
	e.Recovery = Recovery{Threshold: 1, People: []Person{withSecurityKey(t, m, "rosa")}}
	e.Builders, e.BuilderThreshold = []Person{withSecurityKey(t, m, "workshop")}, 1
	e.LedgerKeys = []string{plainKey(t)}
	return &e
}

// A fleet that is no test asks evidence of everybody, a witness and a recovery quorum.
func TestEarnest(t *testing.T) {
	p := newPeople(t)
	real := earnest(t, p)
	data, err := real.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Trust)
		want   string
	}{
		{"as it is", func(*Trust) {}, ""},
		{"no witness", func(t *Trust) { t.WitnessThreshold = 0 }, "witness_threshold is 0"},
		{"no builder", func(t *Trust) { t.Builders, t.BuilderThreshold = nil, 0 }, "builder_threshold is 0"},
		{"a builder who shows nothing", func(t *Trust) { t.Builders[0].Shown = nil }, "builder workshop, key 1: " + hardkey.Missing},
		{"no ledger", func(t *Trust) { t.LedgerKeys = nil }, "ledger_keys is empty"},
		{"no recovery", func(t *Trust) { t.Recovery = Recovery{} }, "recovery threshold is 0"},
		{"an approver who shows nothing", func(t *Trust) { t.Approvers[0].Shown = nil }, "approver anna, key 1: " + hardkey.Missing},
		{"recovery that shows nothing", func(t *Trust) { t.Recovery.People[0].Shown = nil }, "recovery rosa, key 1: " + hardkey.Missing},
		{"a model that is not listed", func(t *Trust) { t.Hardware.AAGUIDs = nil }, hardkey.AAGUID},
		{"user verification", func(t *Trust) { t.Hardware.VerifyRequired = true }, hardkey.CredProtect},
	} {
		changed, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		tt.change(changed)
		if err := changed.Check(); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
