package policies

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/testenv/softcard"
)

var maker = sync.OnceValues(func() (*softcard.Maker, error) { return softcard.NewMaker(hardkey.KindPIV, now) })

// card makes a key in software with a card's evidence.
func card(t testing.TB, plan softcard.Plan) *softcard.Key {
	t.Helper()
	m, err := maker()
	if err != nil {
		t.Fatal(err)
	}
	k, err := m.Make(plan)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// enrol answers a challenge of the fleet for a person.
func enrol(t testing.TB, k *softcard.Key, fleet, name string) Key {
	t.Helper()
	shown, err := k.Shown(hardkey.NewChallenge(fleet, name, [hardkey.NonceBytes]byte{7}, now.Add(-time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	return Key{Public: k.Public(), Evidence: shown.Kind, Challenge: shown.Challenge, Attestation: shown.Attestation, Signature: shown.Signature}
}

// withCards is the test policy in which virtual cards count.
func withCards(t testing.TB) Policy {
	t.Helper()
	m, err := maker()
	if err != nil {
		t.Fatal(err)
	}
	p := parsed(t)
	p.Hardware.TestIssuers = []hardkey.Issuer{m.Issuer()}
	return p
}

// TestEvidenceDecides goes through the reasons that evidence is rejected for. The policy loads with each of them, its owner is kept out, and
// everybody else gets in.
func TestEvidenceDecides(t *testing.T) {
	good := card(t, softcard.Plan{})
	other, err := softcard.NewMaker(hardkey.KindPIV, now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Make(softcard.Plan{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		key    *softcard.Key
		change func(*Policy, *Key)
		want   Reason
	}{
		{"good", good, nil, Allowed},
		{"P-256", card(t, softcard.Plan{Type: ssh.KeyAlgoECDSA256}), nil, Allowed},
		{"P-384", card(t, softcard.Plan{Type: ssh.KeyAlgoECDSA384}), nil, Allowed},
		{"good with verify_required", good, func(p *Policy, _ *Key) { p.SSH.VerifyRequired = true }, Allowed},
		{"nothing shown", good, func(_ *Policy, k *Key) { k.Challenge, k.Attestation, k.Signature = "", nil, "" }, AttestationMissing},
		{"half of the attestation", good, func(_ *Policy, k *Key) { k.Attestation = k.Attestation[:1] }, AttestationMalformed},
		{"not base64", good, func(_ *Policy, k *Key) { k.Attestation = []string{"?", "?"} }, AttestationMalformed},
		{"another maker", foreign, nil, AttestationChain},
		{"no test issuer", good, func(p *Policy, _ *Key) { p.Hardware.TestIssuers = nil }, AttestationChain},
		{"a key swapped after attestation", good, func(_ *Policy, k *Key) { k.Public = card(t, softcard.Plan{}).Public() }, AttestationKeyDiffers},
		{"no policies in it", card(t, softcard.Plan{Without: "policies"}), nil, AttestationExtensionMissing},
		{"no serial number in it", card(t, softcard.Plan{Without: "serial"}), nil, AttestationExtensionMissing},
		{"another slot", card(t, softcard.Plan{Slot: "9c"}), nil, AttestationSlot},
		{"another slot that counts", card(t, softcard.Plan{Slot: "9c"}), func(p *Policy, _ *Key) { p.Hardware.Slots = []string{"9c"} }, Allowed},
		{"touch never", card(t, softcard.Plan{Touch: softcard.TouchNever}), nil, AttestationTouchNever},
		{"touch cached", card(t, softcard.Plan{Touch: softcard.TouchCached}), nil, AttestationTouchCached},
		{"PIN never", card(t, softcard.Plan{PIN: softcard.PINNever}), nil, AttestationPINPolicy},
		{"PIN never, where it may", card(t, softcard.Plan{PIN: softcard.PINNever}), func(p *Policy, _ *Key) { p.Hardware.PINPolicies = []string{"never"} }, Allowed},
		{"PIN never, with verify_required", card(t, softcard.Plan{PIN: softcard.PINNever}), func(p *Policy, _ *Key) {
			p.Hardware.PINPolicies, p.SSH.VerifyRequired = []string{"never"}, true
		}, AttestationPINPolicy},
		{"old firmware", card(t, softcard.Plan{Firmware: [3]byte{5, 4, 3}}), nil, AttestationFirmware},
		{"firmware below the floor", good, func(p *Policy, _ *Key) { p.Hardware.MinFirmware = "5.8.0" }, AttestationFirmware},
		{"a serial number that is denied", good, func(p *Policy, _ *Key) { p.Hardware.SerialsDeny = []uint32{7000001} }, AttestationSerialDenied},
		{"a serial number that is not listed", good, func(p *Policy, _ *Key) { p.Hardware.SerialsAllow = []uint32{7000002} }, AttestationSerialNotListed},
		{"another person's", good, func(_ *Policy, k *Key) { *k = enrol(t, good, "lab", "bert") }, AttestationChallenge},
		{"another fleet's", good, func(_ *Policy, k *Key) { *k = enrol(t, good, "real", "anna") }, AttestationChallenge},
		{"another key's answer", good, func(_ *Policy, k *Key) { k.Signature = enrol(t, card(t, softcard.Plan{}), "lab", "anna").Signature }, AttestationSignature},
		{"revoked by a policy that was never checked", good, func(p *Policy, k *Key) { p.Hardware.Revoked = []string{Fingerprint(k.Public)} }, KeyRevoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, f := withCards(t), lab(t)
			k := enrol(t, tt.key, "lab", "anna")
			if tt.change != nil {
				tt.change(&p, &k)
			}
			if p.SSH.VerifyRequired {
				for i := range p.Engineers {
					for j := range p.Engineers[i].Keys {
						p.Engineers[i].Keys[j].Evidence = "test:softkey+uv"
					}
				}
			}
			p.Engineers[0].Keys = []Key{k}
			p.Certificates.Authorities = []string{softwareKey(50)}
			if err := Check(p, f); err != nil && tt.want != KeyRevoked {
				t.Fatalf("the policy does not load: %v", err)
			}
			login := Login{Source: deskAddress, User: "anna", Key: k.Public}
			check(t, "before it was verified", p.DecideLogin(login, Statements{}, now), map[bool]Reason{true: KeyRevoked, false: KeyNoEvidence}[tt.want == KeyRevoked])
			p = p.Verified(f, now)
			v := p.DecideLogin(login, Statements{}, now)
			check(t, "login", v, tt.want)
			certified, c := login, certificate()
			certified.Certificate = &c
			check(t, "login with a certificate", p.DecideLogin(certified, Statements{}, now), tt.want)
			check(t, "target", p.DecideTarget(login, Target{"se-1", 22}, f, Statements{}, now), tt.want)
			if v := p.DecideLogin(Login{Source: deskAddress, User: "bert", Key: key(3)}, Statements{}, now); !v.Allow {
				t.Errorf("bert: %+v", v)
			}
			rejected := p.Rejected()
			granted := p.Granted(Target{"se-1", 22}, f, now)
			if tt.want == Allowed {
				if len(rejected) != 0 || len(granted) != 1 || len(granted[0].Keys) != 1 {
					t.Errorf("rejected %+v, granted %+v", rejected, granted)
				}
				return
			}
			if len(rejected) != 1 || rejected[0].Name != "anna" || rejected[0].Reason != tt.want || rejected[0].Detail == "" || rejected[0].Fingerprint != Fingerprint(k.Public) {
				t.Errorf("rejected: got %+v, want anna's key for %s", rejected, tt.want)
			}
			if len(granted) != 0 {
				t.Errorf("servers let in %+v", granted)
			}
			if tt.want != KeyRevoked && p.Mend("anna", k) == "" {
				t.Error("nothing says how to mend it")
			}
		})
	}
}

// A key's own evidence counts for itself alone: neither for another, nor after it was changed, nor in a copy of the policy with other keys.
func TestEvidenceIsOfTheKey(t *testing.T) {
	f := lab(t)
	p := withCards(t)
	k := enrol(t, card(t, softcard.Plan{}), "lab", "anna")
	p.Engineers[0].Keys = []Key{k}
	p = p.Verified(f, now)
	if _, v := p.Proof("anna", k); !v.Allow {
		t.Fatalf("got %+v", v)
	}
	for name, change := range map[string]func(*Key){
		"challenge":   func(k *Key) { k.Challenge += "0" },
		"attestation": func(k *Key) { k.Attestation = []string{k.Attestation[1], k.Attestation[0]} },
		"signature":   func(k *Key) { k.Signature = "" },
		"public":      func(k *Key) { k.Public = nistKey },
		"evidence":    func(k *Key) { k.Evidence = "fido2" },
	} {
		other := k
		change(&other)
		if proof, v := p.Proof("anna", other); v.Allow || v.Reason != KeyNoEvidence || proof.Touch {
			t.Errorf("%s changed: got %+v", name, v)
		}
	}
	if _, v := p.Proof("bert", k); v.Allow || v.Reason != KeyNoEvidence {
		t.Errorf("bert's: got %+v", v)
	}
	if _, v := (Policy{}).Proof("anna", k); v.Allow {
		t.Errorf("zero policy: got %+v", v)
	}
	f.Test = false
	if v := p.Verified(f, now).DecideLogin(Login{Source: deskAddress, User: "anna", Key: k.Public}, Statements{}, now); v.Allow || v.Reason != AttestationTest {
		t.Errorf("in a real fleet: got %+v", v)
	}
}

// A card's key types are software's as well: without a card's evidence they are refused by name, whoever asks.
func TestCardKeyTypes(t *testing.T) {
	f := lab(t)
	p := withCards(t)
	k := enrol(t, card(t, softcard.Plan{}), "lab", "anna")
	p.Engineers[0].Keys = []Key{k}
	p = p.Verified(f, now)
	for _, l := range []Login{
		{Source: deskAddress, User: "anna", Key: softwareKey(9)},
		{Source: deskAddress, User: "bert", Key: k.Public}, // anna's
		{Source: deskAddress, User: "anna", Key: nistKey},
	} {
		check(t, l.User, p.DecideLogin(l, Statements{}, now), KeyNotHardware)
	}
	check(t, "nobody", p.DecideLogin(Login{Source: deskAddress, User: "eve", Key: k.Public}, Statements{}, now), UserUnknown)
	for name, keys := range map[string][]Key{"nobody has a card": nil, "anna has": {k}} {
		p.Engineers[0].Keys = keys
		a, err := p.Algorithms()
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(securityKeyTypes)
		if keys != nil {
			want = append(want, ssh.KeyAlgoED25519)
		}
		if !slices.Equal(a.PublicKeys, want) {
			t.Errorf("%s: got %q, want %q", name, a.PublicKeys, want)
		}
	}
	p.SSH.UserKeys = []string{skEd25519, ecdsa384}
	if a, err := p.Algorithms(); err != nil || !slices.Equal(a.PublicKeys, p.SSH.UserKeys) {
		t.Errorf("named by the policy: got %q, %v", a.PublicKeys, err)
	}
	p.SSH.UserKeys = []string{skEd25519, skECDSA}
	p.Engineers[0].Keys = []Key{k}
	if err := Check(p, f); err == nil || !strings.Contains(err.Error(), "which ssh.user_keys does not have") {
		t.Errorf("a card's key whose type user_keys leaves out: got %v", err)
	}
}

// A card's key with a PIN policy is enough for verify_required wherever a security key's own flag would be asked for.
func TestCardsAndUserVerification(t *testing.T) {
	f := deskFleet(t)
	p := withAuthority(t)
	m, _ := maker()
	p.Hardware.TestIssuers = []hardkey.Issuer{m.Issuer()}
	p.SSH.VerifyRequired = true
	anna, bert := enrol(t, card(t, softcard.Plan{}), "lab", "anna"), enrol(t, card(t, softcard.Plan{Type: ssh.KeyAlgoECDSA384, Serial: 2}), "lab", "bert")
	p.Engineers[0].Keys, p.Engineers[1].Keys = []Key{anna}, []Key{bert}
	p.Grants[0].Approval = true
	if err := Check(p, f); err != nil {
		t.Fatal(err)
	}
	p = p.Verified(f, now)
	c := certificate()
	c.Options["verify-required"] = ""
	login := Login{Source: deskAddress, User: "anna", Key: anna.Public, Certificate: &c}
	check(t, "a certificate that asks for it", p.DecideLogin(login, Statements{}, now), Allowed)
	login.Certificate = nil
	approval := Approval{ID: "a1", Engineer: "anna", Servers: []string{"se-1"}, Ports: []uint16{22}, NotBefore: now.Add(-time.Minute), Expires: now.Add(time.Minute), Keys: []string{bert.Public}}
	check(t, "an approval by a card", p.DecideTarget(login, Target{"se-1", 22}, f, Statements{Approvals: []Approval{approval}}, now), Allowed)
	if engineer, v := p.Owner(bert.Public); engineer != "bert" || !v.Allow {
		t.Errorf("owner: %q, %+v", engineer, v)
	}
	p.Hardware.MinFirmware = "6.0.0"
	check(t, "no more", p.Verified(f, now).DecideTarget(login, Target{"se-1", 22}, f, Statements{Approvals: []Approval{approval}}, now), AttestationFirmware)
	p.Hardware.MinFirmware = ""

	glass := enrol(t, card(t, softcard.Plan{Serial: 3}), "lab", "glass")
	p.BreakGlass = []BreakGlass{{Name: "glass", Keys: []Key{glass}, Servers: []string{"*"}, Ports: []uint16{22}}}
	p = p.Verified(f, now)
	open := Statements{Openings: []Opening{{ID: "o1", Name: "glass", Expires: now.Add(time.Hour)}}}
	check(t, "break-glass, sealed", p.DecideLogin(Login{Source: deskAddress, User: "glass", Key: glass.Public}, Statements{}, now), BreakGlassSealed)
	check(t, "break-glass, open", p.DecideLogin(Login{Source: deskAddress, User: "glass", Key: glass.Public}, open, now), Allowed)
}

// Robots are revoked like people, and a policy that enrols what it revokes does not load.
func TestHardwareRevoked(t *testing.T) {
	p, f := withAuthority(t), deskFleet(t)
	robot := Login{Source: p.Robots[0].Source.Addr(), User: "deploy", Key: p.Robots[0].Public}
	check(t, "robot", p.DecideLogin(robot, Statements{}, now), Allowed)
	p.Hardware.Revoked = []string{Fingerprint(p.Robots[0].Public)}
	check(t, "revoked robot", p.DecideLogin(robot, Statements{}, now), KeyRevoked)
	if list := p.RobotsOf("web-1", f, now); len(list) != 0 {
		t.Errorf("a host lets in %+v", list)
	}
	if err := Check(p, f); err == nil || !strings.Contains(err.Error(), "robot[0].public") || hint.Of(err) == "" {
		t.Errorf("a robot that is revoked: got %v", err)
	}
	p.Hardware.Revoked = []string{Fingerprint(key(1))}
	if err := Check(p, f); err == nil || !strings.Contains(err.Error(), "engineer[0].key[0].public") || hint.Of(err) == "" {
		t.Errorf("an engineer who is revoked: got %v", err)
	}
}

func TestCheckHardware(t *testing.T) {
	f := lab(t)
	issuer := withCards(t).Hardware.TestIssuers[0]
	for _, tt := range []struct {
		name   string
		change func(*Hardware)
		want   string // "": it is good
	}{
		{"all of it", func(h *Hardware) {
			h.Slots, h.PINPolicies, h.MinFirmware = []string{"9a", "95"}, []string{"never", "match_always"}, "5.4.0"
			h.SerialsAllow, h.SerialsDeny, h.AAGUIDs = []uint32{1, 2}, []uint32{3}, []string{"d8522d9f-575b-4866-88a9-ba99fa02f35b"}
			h.Revoked = []string{"SHA256:" + strings.Repeat("A", 43)}
		}, ""},
		{"no slot", func(h *Hardware) { h.Slots = []string{"9b"} }, "hardware.slots[0]: "},
		{"empty slots", func(h *Hardware) { h.Slots = []string{} }, "hardware.slots: "},
		{"a slot twice", func(h *Hardware) { h.Slots = []string{"9a", "9a"} }, "hardware.slots[1]: "},
		{"no PIN policy", func(h *Hardware) { h.PINPolicies = []string{"Once"} }, "hardware.pin_policies[0]: "},
		{"no version", func(h *Hardware) { h.MinFirmware = "5.7" }, "hardware.min_firmware: "},
		{"a version that no card has", func(h *Hardware) { h.MinFirmware = "5.7.999" }, "hardware.min_firmware: "},
		{"serial 0", func(h *Hardware) { h.SerialsDeny = []uint32{0} }, "hardware.serials_deny[0]: "},
		{"empty list of serials", func(h *Hardware) { h.SerialsAllow = []uint32{} }, "hardware.serials_allow: "},
		{"a serial twice", func(h *Hardware) { h.SerialsAllow = []uint32{5, 5} }, "hardware.serials_allow[1]: "},
		{"allowed and denied", func(h *Hardware) { h.SerialsAllow, h.SerialsDeny = []uint32{5}, []uint32{5} }, "hardware.serials_deny[0]: "},
		{"no AAGUID", func(h *Hardware) { h.AAGUIDs = []string{"D8522D9F-575B-4866-88A9-BA99FA02F35B"} }, "hardware.aaguids[0]: "},
		{"the AAGUID of nobody", func(h *Hardware) { h.AAGUIDs = []string{"00000000-0000-0000-0000-000000000000"} }, "hardware.aaguids[0]: "},
		{"no fingerprint", func(h *Hardware) { h.Revoked = []string{"MD5:00"} }, "hardware.revoked[0]: "},
		{"an issuer without a name", func(h *Hardware) { h.TestIssuers[0].Name = "" }, "hardware.test_issuer[0].name: "},
		{"an issuer twice", func(h *Hardware) { h.TestIssuers = append(h.TestIssuers, h.TestIssuers[0]) }, "hardware.test_issuer[1].name: "},
		{"another applet", func(h *Hardware) { h.TestIssuers[0].Applet = "opgp" }, "hardware.test_issuer[0].applet: "},
		{"a maker of PIV cards", func(h *Hardware) { h.FIDO2Issuers = []hardkey.Issuer{issuer} }, "hardware.fido2_issuer[0].applet: "},
		{"no certificate", func(h *Hardware) { h.TestIssuers[0].Certificate = "AAAA" }, "hardware.test_issuer[0].certificate: "},
	} {
		p := withCards(t)
		tt.change(&p.Hardware)
		err := Check(p, f)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, want %q and a hint", tt.name, err, tt.want)
		}
	}
	p := withCards(t)
	p.Hardware.TestRoots = nil
	p.Engineers = nil
	p.Grants = nil
	if err := Check(p, inventory.Fleet{Name: "real"}); err == nil || !strings.Contains(err.Error(), "hardware.test_issuer") {
		t.Errorf("test issuers in a real fleet: got %v", err)
	}
}

// Every reason of package hardkey is one of a verdict, with its own place in the documentation.
func TestAttestationReasons(t *testing.T) {
	source, err := os.ReadFile("../bastion/hardkey/rejection.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`"(attestation_[a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(found) < 20 {
		t.Fatalf("found only %d", len(found))
	}
	for _, m := range found {
		if !slices.Contains(Reasons, Reason(m[1])) {
			t.Errorf("%s is no reason of a verdict", m[1])
		}
	}
}

// What is loaded, from TOML or from JSON, is the same, and evidence that was verified is not written.
func TestEvidenceIsNotWritten(t *testing.T) {
	p := withCards(t)
	p.Engineers[0].Keys = []Key{enrol(t, card(t, softcard.Plan{}), "lab", "anna")}
	before, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	after, err := json.Marshal(p.Verified(lab(t), now))
	if err != nil || string(before) != string(after) {
		t.Errorf("got %s, %v, want %s", after, err, before)
	}
	var again Policy
	if err := json.Unmarshal(before, &again); err != nil || !reflect.DeepEqual(again.Engineers[0], p.Engineers[0]) || !reflect.DeepEqual(again.Hardware, p.Hardware) {
		t.Errorf("got %+v, %v", again.Engineers[0], err)
	}
}

// BenchmarkVerified is what a load costs for each card's key.
func BenchmarkVerified(b *testing.B) {
	p, f := withCards(b), lab(b)
	p.Engineers[0].Keys = []Key{enrol(b, card(b, softcard.Plan{}), "lab", "anna")}
	for b.Loop() {
		if len(p.Verified(f, now).Rejected()) != 0 {
			b.Fatal("rejected")
		}
	}
}

// A card is one person's: who holds it is not two of the people that approvals and openings count. Its owner may have several keys on it.
func TestOneCardOnePerson(t *testing.T) {
	f, p := deskFleet(t), withAuthority(t)
	m, _ := maker()
	p.Hardware.TestIssuers = []hardkey.Issuer{m.Issuer()}
	on := func(serial uint32, name string) Key {
		return enrol(t, card(t, softcard.Plan{Serial: serial}), "lab", name)
	}
	p.Engineers[0].Keys = []Key{on(1, "anna"), on(1, "anna")}
	p.Engineers[1].Keys = []Key{on(1, "bert"), on(2, "bert")}
	p.BreakGlass = []BreakGlass{{Name: "glass", Keys: []Key{on(2, "glass"), on(3, "glass")}, Servers: []string{"*"}, Ports: []uint16{22}}}
	if err := Check(p, f); err != nil {
		t.Fatal(err)
	}
	p = p.Verified(f, now)
	for i, tt := range []struct {
		name string
		key  Key
		want Reason
	}{
		{"anna", p.Engineers[0].Keys[0], Allowed},
		{"anna", p.Engineers[0].Keys[1], Allowed},
		{"bert", p.Engineers[1].Keys[0], KeyCardShared},
		{"bert", p.Engineers[1].Keys[1], Allowed},
		{"glass", p.BreakGlass[0].Keys[0], KeyCardShared},
		{"glass", p.BreakGlass[0].Keys[1], Allowed},
	} {
		if v := p.Accept(tt.name, tt.key); v.Reason != tt.want || v.Allow != (tt.want == Allowed) || !v.Allow && p.Mend(tt.name, tt.key) == "" {
			t.Errorf("%d, of %s: got %+v, want %s", i, tt.name, v, tt.want)
		}
	}
	if list := p.Rejected(); len(list) != 2 || !strings.Contains(list[0].Detail, "the card with serial number 1 is anna's") || list[1].Name != "glass" {
		t.Errorf("got %+v", list)
	}
	if other, shared := p.OnCardOf("anna", p.Engineers[0].Keys[0]); other != "bert" || !shared {
		t.Errorf("on anna's card: %q, %v", other, shared)
	}
	if other, shared := p.OnCardOf("glass", p.BreakGlass[0].Keys[1]); shared {
		t.Errorf("on a card of its own: %q", other)
	}
	p.Engineers[0].Keys = nil // then it is bert's
	if v := p.Verified(f, now).Accept("bert", p.Engineers[1].Keys[0]); !v.Allow {
		t.Errorf("alone: got %+v", v)
	}
}

func TestEvidenceText(t *testing.T) {
	for _, tt := range []struct {
		proof hardkey.Proof
		want  string
	}{
		{hardkey.Proof{Kind: "piv", Issuer: "Yubico PIV Root CA Serial 263751", Touch: true, PINPolicy: "once", Slot: "9a", Firmware: "5.7.1", Serial: 12345678},
			"piv, serial 12345678, firmware 5.7.1, slot 9a, touch always, pin once, by Yubico PIV Root CA Serial 263751"},
		{hardkey.Proof{Kind: "fido2", Issuer: "Yubico U2F Root", Touch: true, UserVerification: true, AAGUID: "d8522d9f-575b-4866-88a9-ba99fa02f35b", Application: "ssh:"},
			`fido2, aaguid d8522d9f-575b-4866-88a9-ba99fa02f35b, application "ssh:", touch always, user verification required, by Yubico U2F Root`},
		{hardkey.Proof{Kind: "fido2", Issuer: "x", Application: "ssh:, touch always, \x1b\u202e\xff\""},
			`fido2, aaguid , application "ssh:, touch always, \x1b\u202e\xff\"", touch not proven, user verification not proven, by x`},
		{hardkey.Proof{}, "test:x"},
	} {
		if got := EvidenceText(Key{Evidence: "test:x"}, tt.proof); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
