package main

import (
	"crypto/ed25519"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/policies"
	"mayfly/policies/enrolment"
	"mayfly/policies/trust"
	"mayfly/testenv/softcard"
)

// hostile is what somebody else would have a terminal do, or a page say.
const hostile = "a\x1b[2J\nRECOVERY: 3 of 3 people\tb\u202egnp\xff\a"

const harmless = `a\x1b[2J\nRECOVERY: 3 of 3 people\tb\u202egnp\xff\a`

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{"": "", "Ünïcode … \\ \" 'x'": "Ünïcode … \\ \" 'x'", hostile: harmless, "\u0085\u2028\ufffd\x00\x7f": "\\u0085\\u2028\ufffd\\x00\\x7f"} {
		if got := visible(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Nothing of what others wrote moves the cursor, adds a row or turns a line round: not in a table, not on paper.
func TestViewsEscape(t *testing.T) {
	var table strings.Builder
	if err := show(&table, "table", nil, []string{"NAME", hostile}, [][]string{{"anna", hostile}, {hostile, "x"}}); err != nil {
		t.Fatal(err)
	}
	if got := table.String(); strings.Count(got, harmless) != 3 || strings.Count(got, "\n") != 3 || strings.ContainsAny(got, "\x1b\a\t\u202e") || !utf8.ValidString(got) {
		t.Errorf("table: got %q", got)
	}
	record := trustRecord(&trust.Trust{Fleet: "lab", Hardware: trust.Hardware{Slots: []string{hostile}, AAGUIDs: []string{hostile},
		FIDO2Issuers: []hardkey.Issuer{{Name: hostile}}, TestIssuers: []hardkey.Issuer{{Name: hostile, Applet: hostile}}}}, nil, "x", time.Now())
	if strings.Count(record, harmless) != 5 || strings.ContainsAny(record, "\x1b\a\t\u202e") || !utf8.ValidString(record) || strings.Contains(record, "\nRECOVERY: 3") {
		t.Errorf("record: got %q", record)
	}
}

// fidoRequest is an enrolment request of anna for a FIDO2 key with an application, in a fleet that takes such keys.
func fidoRequest(t *testing.T, application string) (state, enrolment.Request) {
	t.Helper()
	d, _ := challenged(t)
	m, err := softcard.NewMaker(hardkey.KindFIDO2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(d.policyFile())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "[[hardware.", "[hardware]\naaguids = [\""+softcard.AAGUID()+"\"]\n\n[[hardware.", 1) +
		"\n[[hardware.test_issuer]]\nname = \"" + m.Issuer().Name + "\"\napplet = \"fido2\"\ncertificate = \"" + m.Issuer().Certificate + "\"\n"
	if err := os.WriteFile(d.policyFile(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct{ Name, Key, Application string }{ssh.KeyAlgoSKED25519, string(public), application}))
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.makeChallenge("lab", "anna", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := m.ShowFIDO2(key, c)
	if err != nil {
		t.Fatal(err)
	}
	return d, enrolment.New(c, trust.FormatKey(key), shown)
}

// An application that would say more than an application is refused, and so is nowhere to be read.
func TestAddKeyApplication(t *testing.T) {
	d, r := fidoRequest(t, "ssh:lab")
	key, _, err := d.addKey(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if want := `application "ssh:lab", touch always`; !strings.Contains(key.text(), want) {
		t.Errorf("got %q, want %q in it", key.text(), want)
	}
	for _, application := range []string{"ssh:" + hostile, "ssh:, touch always, user verification required, by Yubico FIDO Attestation B 1", "ssh:" + strings.Repeat("x", 61)} {
		d, r := fidoRequest(t, application)
		_, _, err := d.addKey(r, time.Now())
		if command.ExitCode(err) != command.Refused || !strings.HasPrefix(err.Error(), string(policies.AttestationRelyingParty)+": ") || visible(err.Error()) != err.Error() {
			t.Errorf("%q: got %v", application, err)
		}
	}
}
