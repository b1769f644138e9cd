package skprovider

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/testenv/pivcard"
)

// evidence is what a person shows of a key that ssh-keygen made, and what the fleet asks.
type evidence struct {
	public string
	shown  hardkey.Shown
	rules  hardkey.Rules
	now    time.Time
}

// enrol has ssh-keygen make a key for the fleet's challenge.
func (d *desk) enrol(kind string, options ...string) evidence {
	d.t.Helper()
	now := time.Now()
	c := hardkey.NewChallenge("fleet", "anna", [hardkey.NonceBytes]byte{1}, now)
	args := d.enroll(kind, "id", options...)
	d.write("challenge", string(c.Signed()), 0o600)
	d.run("ssh-keygen", args...)
	e := evidence{
		public: strings.Join(strings.Fields(string(d.read("id.pub")))[:2], " "),
		shown: hardkey.Shown{Kind: hardkey.KindFIDO2, Challenge: c.String(),
			Attestation: []string{base64.StdEncoding.EncodeToString(d.read("id.attestation"))}},
		rules: hardkey.Rules{AAGUIDs: []string{Model.String()}, VerifyRequired: true, Test: true},
		now:   now,
	}
	for _, i := range d.issuer.DeviceIssuers() {
		e.rules.TestIssuers = append(e.rules.TestIssuers, hardkey.Issuer{Name: i.Name, Applet: i.Applet, Certificate: i.Certificate})
	}
	return e
}

func (e evidence) verify() (hardkey.Proof, *hardkey.Rejection) {
	return hardkey.Verify("fleet", "anna", e.public, e.shown, e.rules, e.now)
}

// What OpenSSH writes of a key of ours is proof for a fleet that trusts the test's issuer.
func TestEvidence(t *testing.T) {
	for _, tt := range []struct {
		kind    string
		options []string
		uv      bool
	}{
		{"ed25519-sk", []string{"verify-required"}, true},
		{"ecdsa-sk", []string{"verify-required"}, true},
		{"ed25519-sk", nil, false},
		{"ecdsa-sk", []string{"resident", "verify-required", "user=anna"}, true},
	} {
		t.Run(tt.kind+" "+strings.Join(tt.options, " "), func(t *testing.T) {
			e := newDesk(t, nil).enrol(tt.kind, tt.options...)
			e.rules.VerifyRequired = tt.uv
			proof, rejection := e.verify()
			if rejection != nil {
				t.Fatalf("%s: %v", rejection.Reason, rejection)
			}
			if !proof.Test || !proof.Touch || proof.UserVerification != tt.uv || proof.AAGUID != Model.String() || proof.Application != "ssh:x" || proof.Kind != hardkey.KindFIDO2 {
				t.Errorf("got %+v", proof)
			}
		})
	}
}

// Every reason that FIDO2 evidence can be rejected for, by what ssh-keygen writes of a key that is so.
func TestEvidenceRejected(t *testing.T) {
	flawed := func(f Flaw) func(*Settings) { return func(s *Settings) { s.Flaws = []Flaw{f} } }
	foreign, err := pivcard.NewIssuer()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, tt := range []struct {
		name   string
		made   func(*Make)
		set    func(*Settings)
		show   func(*desk, *evidence)
		reason string
	}{
		{name: "cut short", set: flawed(FlawCutShort), reason: hardkey.Malformed},
		{name: "no certificate", set: flawed(FlawNoCertificate), reason: hardkey.Missing},
		{name: "nothing shown", show: func(_ *desk, e *evidence) { e.shown = hardkey.Shown{} }, reason: hardkey.Missing},
		{name: "another person's challenge", reason: hardkey.ChallengeDiffers, show: func(_ *desk, e *evidence) {
			e.shown.Challenge = strings.Replace(e.shown.Challenge, " anna ", " bert ", 1)
		}},
		{name: "a later challenge", reason: hardkey.Signature, show: func(_ *desk, e *evidence) {
			e.shown.Challenge = hardkey.NewChallenge("fleet", "anna", [hardkey.NonceBytes]byte{2}, e.now).String()
		}},
		{name: "signs another challenge", set: flawed(FlawOtherChallenge), reason: hardkey.Signature},
		{name: "software key beside it", reason: hardkey.KeyType, show: func(d *desk, e *evidence) {
			d.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", d.path("soft"))
			e.public = strings.TrimSpace(string(d.read("soft.pub")))
		}},
		{name: "another key of the same device", reason: hardkey.KeyDiffers, show: func(d *desk, e *evidence) {
			d.run("ssh-keygen", d.enroll("ed25519-sk", "other", "verify-required")...)
			e.public = strings.TrimSpace(string(d.read("other.pub")))
		}},
		{name: "attests another key", set: flawed(FlawOtherKey), reason: hardkey.KeyDiffers},
		{name: "foreign maker", made: func(m *Make) { m.Issuer = foreign.FIDO }, reason: hardkey.Chain},
		{name: "the maker's PIV authority", made: func(m *Make) { m.Issuer = maker(t).PIV }, reason: hardkey.OtherApplet},
		{name: "certificate for something else", made: func(m *Make) { m.Unit = "Something Else" }, reason: hardkey.OtherApplet},
		{name: "certificate has ended", made: func(m *Make) { m.NotAfter = time.Now().AddDate(0, 0, -1) }, reason: hardkey.Expired},
		{name: "certificate names no model", made: func(m *Make) { m.Nameless = true }, reason: hardkey.ExtensionMissing},
		{name: "says another model", set: flawed(FlawOtherModel), reason: hardkey.AAGUID},
		{name: "model off the list", made: func(m *Make) { m.AAGUID[15]++ }, reason: hardkey.AAGUID},
		{name: "wrong relying party", set: flawed(FlawWrongRP), reason: hardkey.RelyingParty},
		{name: "no touch", set: flawed(FlawNoTouchFlag), reason: hardkey.Flags},
		{name: "copied elsewhere", set: flawed(FlawSynced), reason: hardkey.Synced},
		{name: "no credProtect", set: flawed(FlawNoCredProtect), reason: hardkey.CredProtect},
		{name: "a fleet that is no test", show: func(_ *desk, e *evidence) { e.rules.Test = false }, reason: hardkey.TestIssuer},
		{name: "rules that cannot be read", show: func(_ *desk, e *evidence) { e.rules.AAGUIDs = []string{"?"} }, reason: hardkey.BadRules},
		{name: "unknown kind", show: func(_ *desk, e *evidence) { e.shown.Kind = "u2f" }, reason: hardkey.Kind},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, tt.made)
			if tt.set != nil {
				d.set(tt.set)
			}
			e := d.enrol("ed25519-sk", "verify-required")
			if tt.show != nil {
				tt.show(d, &e)
			}
			_, rejection := e.verify()
			if rejection == nil || rejection.Reason != tt.reason {
				t.Fatalf("got %+v, want %s", rejection, tt.reason)
			}
			if rejection.Text == "" || rejection.Mend == "" {
				t.Errorf("got %+v: it says too little", rejection)
			}
		})
		seen[tt.reason] = true
	}
	for _, piv := range []string{hardkey.Imported, hardkey.Slot, hardkey.TouchNever, hardkey.TouchCached, hardkey.PINPolicy, hardkey.Firmware,
		hardkey.SerialDenied, hardkey.SerialNotListed} {
		seen[piv] = true
	}
	for _, reason := range hardkey.Reasons() {
		if !seen[reason] {
			t.Errorf("no key of ours is rejected for %s, and it is not PIV's alone", reason)
		}
	}
}
