package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/policies"
	"mayfly/testenv/softcard"
)

var cardTypes = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384}

// withCards is a policy in which deploy has a card's key of each type and may log in at se-1.
func withCards(t *testing.T) (p policies.Policy, cards []*softcard.Key) {
	t.Helper()
	m, err := softcard.NewMaker(hardkey.KindPIV, testNow)
	if err != nil {
		t.Fatal(err)
	}
	p = policies.Policy{Expires: testNow.Add(time.Hour), SSH: policies.SSH{Level: policies.PQPreferred}, Engineers: []policies.Engineer{{Name: "deploy"}},
		Grants: []policies.Grant{{Engineers: []string{"deploy"}, Servers: []string{"se-1"}, Ports: []uint16{22}}}}
	p.Hardware.TestIssuers = []hardkey.Issuer{m.Issuer()}
	for _, kind := range cardTypes {
		k, err := m.Make(softcard.Plan{Type: kind})
		if err != nil {
			t.Fatal(err)
		}
		shown, err := k.Shown(hardkey.NewChallenge("lab", "deploy", [hardkey.NonceBytes]byte{1}, testNow))
		if err != nil {
			t.Fatal(err)
		}
		p.Engineers[0].Keys = append(p.Engineers[0].Keys, policies.Key{Public: k.Public(), Evidence: shown.Kind, Challenge: shown.Challenge, Attestation: shown.Attestation, Signature: shown.Signature})
		cards = append(cards, k)
	}
	return p, cards
}

// TestGrantedCards: a server's sshd learns of a card's keys if its evidence is accepted, and of their types if somebody has one.
func TestGrantedCards(t *testing.T) {
	p, cards := withCards(t)
	f := testFleet()
	f.Test = true
	if got := granted(p, f, "se-1", testNow); len(got) != 0 {
		t.Errorf("evidence that was not verified: got %+v", got)
	}
	good := p.Verified(f, testNow)
	got := granted(good, f, "se-1", testNow)
	if len(got) != 1 || len(got[0].keys) != len(cards) {
		t.Fatalf("got %+v, want three keys of deploy", got)
	}
	file := string(authorizedKeys(got[0], []netip.Addr{netip.MustParseAddr("10.77.0.2")}))
	for _, k := range cards {
		if !strings.Contains(file, `from="10.77.0.2",restrict,pty `+k.Public()+" deploy\n") {
			t.Errorf("authorized keys:\n%s\nwant %s", file, k.Public())
		}
	}
	a, err := sshdAlgorithms(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range cardTypes {
		if !slices.Contains(a.PublicKeys, kind) {
			t.Errorf("sshd does not take %s: %q", kind, a.PublicKeys)
		}
	}
	strict := p
	strict.Hardware.MinFirmware = "5.8.0"
	if got := granted(strict.Verified(f, testNow), f, "se-1", testNow); len(got) != 0 {
		t.Errorf("evidence that is rejected: got %+v", got)
	}
	f.Test = false
	if got := granted(p.Verified(f, testNow), f, "se-1", testNow); len(got) != 0 {
		t.Errorf("virtual cards in a real fleet: got %+v", got)
	}
	p.Engineers = nil
	if a, err := sshdAlgorithms(p); err != nil || slices.ContainsFunc(a.PublicKeys, func(name string) bool { return !strings.HasPrefix(name, "sk-") }) {
		t.Errorf("nobody has a card: sshd takes %q, %v", a.PublicKeys, err)
	}
}

// TestSSHDTakesCards: a real sshd that asks security keys for touch and user verification lets cards' keys in, which cannot show them,
// and no other key of their types.
func TestSSHDTakesCards(t *testing.T) {
	s := newRealSSHD(t)
	p, cards := withCards(t)
	p.SSH.VerifyRequired = true
	f := testFleet()
	f.Test = true
	p = p.Verified(f, testNow)
	who := granted(p, f, "se-1", testNow)
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if len(who) != 1 {
		t.Fatalf("granted: %+v", who)
	}
	s.write("authorized_keys/deploy", authorizedKeys(who[0], local))
	s.write("revoked_keys", policies.Revocations{}.Bytes())
	a, err := sshdAlgorithms(p)
	if err != nil {
		t.Fatal(err)
	}
	s.start(sshdConfiguration(sshdSettings{listen: local[0], algorithms: a, dir: s.dir, engineers: who, bastions: local, verify: p.SSH.VerifyRequired}))
	for i, k := range cards {
		if out, err := s.run(k.Signer, "echo one day"); err != nil || out != "one day\n" {
			t.Errorf("%s: got %q, %v", cardTypes[i], out, err)
		}
	}
	_, others := withCards(t)
	for i, k := range others {
		if out, err := s.run(k.Signer, "echo one day"); err == nil {
			t.Errorf("%s of somebody else: got %q", cardTypes[i], out)
		}
	}
}
