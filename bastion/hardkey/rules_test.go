package hardkey

import (
	"crypto/elliptic"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

func TestRulesCheck(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	ca := encoded(issue(t, template("Maker", true), nil, key.Public(), key).Raw)
	leaf := encoded(issue(t, template("Maker", false), nil, key.Public(), key).Raw)
	denies := template("Maker", false)
	denies.BasicConstraintsValid = true
	denying := encoded(issue(t, denies, nil, key.Public(), key).Raw)
	for _, tt := range []struct {
		name  string
		rules Rules
		want  string // "": accepted
	}{
		{"zero", Rules{}, ""},
		{"all", Rules{
			Slots: []string{"9a", "9c", "9d", "9e", "82", "95"}, PINPolicies: []string{"never", "once", "always", "match_once", "match_always"}, MinFirmware: "0.0.255",
			SerialsAllow: []uint32{1}, SerialsDeny: []uint32{2}, AAGUIDs: []string{"2fc0579f-8113-47ea-b116-bb5a8db9202a"}, VerifyRequired: true, Test: true,
			FIDO2Issuers: []Issuer{{"maker", KindFIDO2, ca}}, TestIssuers: []Issuer{{"card", KindPIV, ca}, {"card", KindFIDO2, ca}},
		}, ""},
		{"slot f9", Rules{Slots: []string{"9a", "f9"}}, `slots[1]: "f9"`},
		{"slot 9b", Rules{Slots: []string{"9b"}}, `slots[0]: "9b"`},
		{"slot 96", Rules{Slots: []string{"96"}}, `slots[0]: "96"`},
		{"slot in capitals", Rules{Slots: []string{"9A"}}, `slots[0]: "9A"`},
		{"PIN policy", Rules{PINPolicies: []string{"sometimes"}}, `pin_policies[0]: "sometimes"`},
		{"firmware of two", Rules{MinFirmware: "5.7"}, "min_firmware: "},
		{"firmware of four", Rules{MinFirmware: "5.7.0.0"}, "min_firmware: "},
		{"firmware of 256", Rules{MinFirmware: "5.7.256"}, "min_firmware: "},
		{"firmware with a zero", Rules{MinFirmware: "5.07.0"}, "min_firmware: "},
		{"firmware with a sign", Rules{MinFirmware: "5.+7.0"}, "min_firmware: "},
		{"AAGUID in capitals", Rules{AAGUIDs: []string{"2FC0579F-8113-47EA-B116-BB5A8DB9202A"}}, "aaguids[0]: "},
		{"AAGUID without dashes", Rules{AAGUIDs: []string{"2fc0579f811347eab116bb5a8db9202a"}}, "aaguids[0]: "},
		{"AAGUID of none", Rules{AAGUIDs: []string{noAAGUID}}, "aaguids[0]: "},
		{"issuer without a name", Rules{FIDO2Issuers: []Issuer{{"", KindFIDO2, ca}}}, "fido2_issuer[0].name"},
		{"issuer with a long name", Rules{FIDO2Issuers: []Issuer{{strings.Repeat("x", 64), KindFIDO2, ca}}}, "fido2_issuer[0].name"},
		{"issuer that writes on a terminal", Rules{FIDO2Issuers: []Issuer{{"maker\x1b[2J", KindFIDO2, ca}}}, "fido2_issuer[0].name"},
		{"issuer with a comma", Rules{FIDO2Issuers: []Issuer{{"maker, touch always", KindFIDO2, ca}}}, "fido2_issuer[0].name"},
		{"issuer twice", Rules{FIDO2Issuers: []Issuer{{"a", KindFIDO2, ca}, {"a", KindFIDO2, ca}}}, "fido2_issuer[1].name"},
		{"test issuer of a maker's name", Rules{FIDO2Issuers: []Issuer{{"a", KindFIDO2, ca}}, TestIssuers: []Issuer{{"a", KindFIDO2, ca}}}, "test_issuer[0].name"},
		{"issuer of Yubico's name", Rules{TestIssuers: []Issuer{{"Yubico PIV Attestation B 1", KindPIV, ca}}}, "test_issuer[0].name"},
		{"PIV issuer in earnest", Rules{FIDO2Issuers: []Issuer{{"a", KindPIV, ca}}}, `fido2_issuer[0].applet: "piv"`},
		{"issuer of no applet", Rules{TestIssuers: []Issuer{{"a", "", ca}}}, "test_issuer[0].applet"},
		{"issuer of another applet", Rules{TestIssuers: []Issuer{{"a", otherApplet, ca}}}, "test_issuer[0].applet"},
		{"no certificate", Rules{TestIssuers: []Issuer{{"a", KindPIV, ""}}}, "test_issuer[0].certificate: empty"},
		{"not base64", Rules{TestIssuers: []Issuer{{"a", KindPIV, "%"}}}, "test_issuer[0].certificate: not base64"},
		{"not a certificate", Rules{TestIssuers: []Issuer{{"a", KindPIV, "AAAA"}}}, "test_issuer[0].certificate: "},
		{"no authority, and says so", Rules{TestIssuers: []Issuer{{"a", KindPIV, denying}}}, "test_issuer[0].certificate: it is no certificate authority's"},
		{"no authority", Rules{TestIssuers: []Issuer{{"a", KindPIV, leaf}}}, "test_issuer[0].certificate: it is no certificate authority's"},
	} {
		err := tt.rules.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// The zero rules ask for what their comments say.
func TestDefaults(t *testing.T) {
	c, err := Rules{}.compile()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Slots, " "); got != "9a 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f 90 91 92 93 94 95" {
		t.Errorf("slots: got %s", got)
	}
	if got := strings.Join(c.PINPolicies, " "); got != "once always match_once match_always" {
		t.Errorf("PIN policies: got %s", got)
	}
	if c.floor != (version{5, 7, 0}) || c.Test || len(c.AAGUIDs) != 0 {
		t.Errorf("got %+v", c)
	}
}

// A rejection is an error with a mend, and nothing of what was shown reaches a terminal as it is.
func TestRejection(t *testing.T) {
	r := reject(Chain, "mend it", "by %s", "\x1b]0;x\a\u202eb\xff")
	if r.Error() != "by ?]0;x??b?" {
		t.Errorf("got %q", r.Error())
	}
	if got := clip(strings.Repeat("x", 80)); len(got) != 80 {
		t.Errorf("80 bytes: got %q", got)
	}
	if got := clip(strings.Repeat("x", 81)); got != strings.Repeat("x", 80)+"…" {
		t.Errorf("81 bytes: got %q", got)
	}
	if got := hint.Of(r); got != "mend it" {
		t.Errorf("got hint %q", got)
	}
}
