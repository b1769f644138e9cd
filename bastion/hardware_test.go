package bastion

import (
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/policies"
	"mayfly/policies/statement"
	"mayfly/testenv/softcard"
	"mayfly/testenv/softkey"
)

// maker makes virtual cards count in the fixture's policy.
func (f *fixture) maker() *softcard.Maker {
	f.t.Helper()
	m, err := softcard.NewMaker(hardkey.KindPIV, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	f.policy.Hardware.TestIssuers = []hardkey.Issuer{m.Issuer()}
	return m
}

// card makes a key with a card's evidence.
func (f *fixture) card(m *softcard.Maker, plan softcard.Plan) *softcard.Key {
	f.t.Helper()
	k, err := m.Make(plan)
	if err != nil {
		f.t.Fatal(err)
	}
	return k
}

// enrol is the key's entry in the policy, for a person of a fleet.
func (f *fixture) enrol(k *softcard.Key, fleet, name string) policies.Key {
	f.t.Helper()
	shown, err := k.Shown(hardkey.NewChallenge(fleet, name, [hardkey.NonceBytes]byte{1}, time.Now().Add(-time.Minute)))
	if err != nil {
		f.t.Fatal(err)
	}
	return policies.Key{Public: k.Public(), Evidence: shown.Kind, Challenge: shown.Challenge, Attestation: shown.Attestation, Signature: shown.Signature}
}

// TestCardLogin: keys of each type that cards have let their owners in, and the records say by what.
func TestCardLogin(t *testing.T) {
	f := newFixture(t)
	m := f.maker()
	f.target("10.77.0.11:22", echo)
	var cards []*softcard.Key
	f.policy.Engineers[0].Keys = nil
	f.policy.SSH.VerifyRequired = true // a card's PIN policy is enough
	f.policy.Engineers[1].Keys[0].Evidence = "test:softkey+uv"
	for i, kind := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384} {
		cards = append(cards, f.card(m, softcard.Plan{Type: kind, Serial: uint32(7000 + i), Slot: "9a"}))
		f.policy.Engineers[0].Keys = append(f.policy.Engineers[0].Keys, f.enrol(cards[i], "lab", "anna"))
	}
	f.writeBundle(2)
	report, err := Check(f.config, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	offered := []string{"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ssh-ed25519"}
	if !slices.Equal(report.Algorithms.PublicKeys, offered) || !slices.Equal(report.Software, []string{"rsa-sha2-512", "rsa-sha2-256"}) || len(report.Rejected) != 0 {
		t.Errorf("check: keys %q, refused by name %q, rejected %+v", report.Algorithms.PublicKeys, report.Software, report.Rejected)
	}
	f.start()
	for i, kind := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384} {
		client := f.login("anna", cards[i].Signer)
		conn, err := client.Dial("tcp", "se-1:22")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		f.hangUp(client)
		want := "piv, serial " + strconv.Itoa(7000+i) + ", firmware 5.7.4, slot 9a, touch always, pin once, by TEST softcard piv maker"
		if r := f.closing(); r.Outcome != "accepted" || r.KeyType != kind || r.Evidence != want || !r.Test || r.Identity != "engineer" {
			t.Errorf("%s: %+v, want evidence %q", kind, r, want)
		}
		if login := string(f.next(eventLogin).Record); !strings.Contains(login, want) || !strings.Contains(login, `"test":true`) {
			t.Errorf("%s: login record %s", kind, login)
		}
	}
	f.hangUp(f.login("bert", f.bert.Signer(softkey.Verified)))
	if r := f.closing(); r.Outcome != "accepted" || r.Evidence != "test:softkey+uv" {
		t.Errorf("beside them: %+v", r)
	}
}

// TestEvidenceRefused: the policy is in force, and whoever has a key whose evidence is rejected stays out with its own reason.
func TestEvidenceRefused(t *testing.T) {
	f := newFixture(t)
	m := f.maker()
	foreign, err := softcard.NewMaker(hardkey.KindPIV, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.target("10.77.0.13:22", echo)
	f.policy.SSH.PenaltyExempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	f.policy.Hardware.SerialsDeny = []uint32{666}
	f.policy.Hardware.MinFirmware = "5.7.2"
	rows := []struct {
		name   string
		maker  *softcard.Maker
		plan   softcard.Plan
		change func(*policies.Key)
		want   policies.Reason
	}{
		{name: "missing", change: func(k *policies.Key) { k.Challenge, k.Attestation, k.Signature = "", nil, "" }, want: policies.AttestationMissing},
		{name: "malformed", change: func(k *policies.Key) { k.Attestation[0] = "AAAA" }, want: policies.AttestationMalformed},
		{name: "foreign", maker: foreign, want: policies.AttestationChain},
		{name: "swapped", change: func(k *policies.Key) { k.Public = f.card(m, softcard.Plan{}).Public() }, want: policies.KeyNotHardware},
		{name: "differs", change: func(k *policies.Key) {
			k.Attestation = f.enrol(f.card(m, softcard.Plan{}), "lab", "differs").Attestation
		}, want: policies.AttestationKeyDiffers},
		{name: "no-policies", plan: softcard.Plan{Without: "policies"}, want: policies.AttestationExtensionMissing},
		{name: "slot", plan: softcard.Plan{Slot: "9d"}, want: policies.AttestationSlot},
		{name: "never", plan: softcard.Plan{Touch: softcard.TouchNever}, want: policies.AttestationTouchNever},
		{name: "cached", plan: softcard.Plan{Touch: softcard.TouchCached}, want: policies.AttestationTouchCached},
		{name: "pin", plan: softcard.Plan{PIN: softcard.PINNever}, want: policies.AttestationPINPolicy},
		{name: "firmware", plan: softcard.Plan{Firmware: [3]byte{5, 7, 1}}, want: policies.AttestationFirmware},
		{name: "serial", plan: softcard.Plan{Serial: 666}, want: policies.AttestationSerialDenied},
		{name: "other-person", change: func(k *policies.Key) { k.Challenge = strings.Replace(k.Challenge, "other-person", "anna", 1) }, want: policies.AttestationChallenge},
		{name: "other-answer", change: func(k *policies.Key) {
			k.Signature = f.enrol(f.card(m, softcard.Plan{}), "lab", "other-answer").Signature
		}, want: policies.AttestationSignature},
	}
	cards := map[string]*softcard.Key{}
	for _, row := range rows {
		by := m
		if row.maker != nil {
			by = row.maker
		}
		cards[row.name] = f.card(by, row.plan)
		k := f.enrol(cards[row.name], "lab", row.name)
		if row.change != nil {
			k.Attestation = slices.Clone(k.Attestation)
			row.change(&k)
		}
		f.policy.Engineers = append(f.policy.Engineers, policies.Engineer{Name: row.name, Keys: []policies.Key{k}})
	}
	f.writeBundle(2)
	report, err := Check(f.config, time.Now())
	if err != nil || len(report.Rejected) != len(rows) {
		t.Errorf("check: %d keys rejected of %d, %v", len(report.Rejected), len(rows), err)
	}
	d := &doctor{config: f.config, now: time.Now()}
	d.policy()
	found := 0
	for _, finding := range d.findings {
		if finding.Check == "keys" && finding.Health == Warn && finding.Hint != "" && strings.Contains(finding.What, "lets nobody in: attestation_") {
			found++
		}
	}
	if found != len(rows) {
		t.Errorf("the doctor found %d of %d: %+v", found, len(rows), d.findings)
	}
	f.start()
	if served := string(f.next(eventServe).Record); !strings.Contains(served, `"rejected_keys":14`) {
		t.Errorf("serve record: %s", served)
	}
	for _, row := range rows {
		if client, err := f.client(row.name, cards[row.name].Signer); err == nil {
			client.Close()
			t.Errorf("%s: logged in", row.name)
		}
		if penaltyCosts[row.want] != provenCost {
			t.Errorf("%s costs %v, and other keys that let nobody in %v", row.want, penaltyCosts[row.want], provenCost)
		}
		if r := f.refusedFor(row.want); r.User != row.name || row.want != policies.KeyNotHardware && r.Evidence != "piv" || r.Key == "" {
			t.Errorf("%s: %+v", row.name, r)
		}
	}
	f.works()
}

// TestStricterRulesCut: a policy whose rules no longer accept a card's evidence cuts its owner's sessions, and nobody else's.
func TestStricterRulesCut(t *testing.T) {
	f := newFixture(t)
	m := f.maker()
	f.target("10.77.0.11:22", echo)
	f.target("10.77.0.13:22", echo)
	good := f.card(m, softcard.Plan{})
	f.policy.Engineers[0].Keys = []policies.Key{f.enrol(good, "lab", "anna")}
	f.writeBundle(2)
	f.start()
	anna := f.login("anna", good.Signer)
	lost, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	kept, err := bert.Dial("tcp", "nl-1:22")
	if err != nil {
		t.Fatal(err)
	}

	f.policy.Version, f.policy.Hardware.MinFirmware = 2, "5.8.0"
	if r := f.newPolicy(); r.Outcome != "in_force" || r.Version != 2 || r.Cut == 0 || r.Rejected != 1 {
		t.Errorf("record: %+v", r)
	}
	if r := f.closing(); r.User != "anna" || r.Outcome != "accepted" || r.Ended != endPolicy || r.Reason != policies.AttestationFirmware {
		t.Errorf("the session that was cut: %+v", r)
	}
	if n, err := io.Copy(io.Discard, lost); n > 0 {
		t.Errorf("read %d bytes from the target that was cut, %v", n, err)
	}
	if _, err := io.WriteString(kept, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(kept, make([]byte, 1)); err != nil {
		t.Errorf("bert's: %v", err)
	}
	if client, err := f.client("anna", good.Signer); err == nil {
		client.Close()
		t.Error("logged in by evidence that is no longer accepted")
	}
	f.refusedFor(policies.AttestationFirmware)

	// Back to rules that accept it, and a revoked fingerprint that does not.
	f.policy.Version, f.policy.Hardware.MinFirmware = 3, ""
	f.newPolicy()
	again := f.login("anna", good.Signer)
	f.policy.Version, f.policy.Hardware.Revoked, f.policy.Engineers[0].Keys = 4, []string{ssh.FingerprintSHA256(good.Signer.PublicKey())}, nil
	if r := f.newPolicy(); r.Outcome != "in_force" || r.Cut != 1 {
		t.Errorf("revoked: %+v", r)
	}
	if err := again.Wait(); err == nil {
		t.Error("the session of a revoked key ended in order")
	}
	if r := f.closing(); r.User != "anna" || r.Ended != endPolicy || r.Reason != policies.KeyRevoked {
		t.Errorf("the session of the revoked key: %+v", r)
	}
}

// TestCardCertificate: a certificate of a card's key lets in whom the key is enrolled for, and nobody by a software key.
func TestCardCertificate(t *testing.T) {
	f := newFixture(t)
	f.authority()
	m := f.maker()
	for i, kind := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA384} {
		k := f.card(m, softcard.Plan{Type: kind})
		f.policy.Version = uint64(i + 1)
		f.policy.Engineers[0].Keys = []policies.Key{f.enrol(k, "lab", "anna")}
		f.writeBundle(2)
		if i == 0 {
			f.start()
		} else {
			f.newPolicy()
		}
		f.hangUp(f.login("anna", f.certify(k.Signer, changed("-O", "verify-required")...)))
		if r := f.closing(); r.Outcome != "accepted" || r.Certificate == nil || !strings.HasPrefix(r.Evidence, "piv, serial ") {
			t.Errorf("%s: %+v", kind, r)
		}
	}
	if client, err := f.client("anna", f.certify(f.card(m, softcard.Plan{}).Signer, goodCertificate...)); err == nil {
		client.Close()
		t.Error("logged in by a key that nobody enrolled")
	}
	f.refusedFor(policies.KeyNotHardware)
}

// TestCardApproves: another engineer's card approves by its signature, where the policy asks for user verification as well.
func TestCardApproves(t *testing.T) {
	f := withStatements(t, func(*policies.Policy) {})
	k := f.card(f.maker(), softcard.Plan{Type: ssh.KeyAlgoECDSA256})
	f.policy.SSH.VerifyRequired = true
	f.policy.Engineers[0].Keys[0].Evidence = "test:softkey+uv"
	f.policy.Engineers[1].Keys = []policies.Key{f.enrol(k, "lab", "bert")}
	f.policy.Grants[0].Approval = true
	f.writeBundle(2)
	f.target("10.77.0.11:22", echo)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Verified))
	refusedWith(t, anna, "se-1:22", policies.ApprovalMissing)
	f.say("a1", annasApproval(), statement.NamespaceApproval, k.Signer)
	if r := decode[statementRecord](t, f.next(eventStatement)); r.Outcome != statementAccepted || r.For != "anna" {
		t.Errorf("record: %+v", r)
	}
	conn, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	// Rules that reject the approver's evidence take the approval with it.
	f.policy.Version, f.policy.Hardware.SerialsDeny = 2, []uint32{7000001}
	f.newPolicy()
	refusedWith(t, anna, "se-1:22", policies.ApprovalMissing)
}

// TestAuthenticatorLogin: a FIDO2 key with evidence lets its owner in by a touch, while its model is listed and no PIN is asked for that it
// does not prove.
func TestAuthenticatorLogin(t *testing.T) {
	f := newFixture(t)
	m, err := softcard.NewMaker(hardkey.KindFIDO2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Hardware.FIDO2Issuers, f.policy.Hardware.AAGUIDs = []hardkey.Issuer{m.Issuer()}, []string{softcard.AAGUID()}
	shown, err := m.ShowFIDO2(f.anna.Signer(softkey.Always).PublicKey(), hardkey.NewChallenge("lab", "anna", [hardkey.NonceBytes]byte{1}, time.Now().Add(-time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Engineers[0].Keys = []policies.Key{{Public: f.anna.Authorized(), Evidence: shown.Kind, Challenge: shown.Challenge, Attestation: shown.Attestation}}
	f.writeBundle(2)
	f.start()
	f.hangUp(f.login("anna", f.anna.Signer(softkey.Always)))
	want := "fido2, aaguid " + softcard.AAGUID() + ", application \"ssh:\", touch always, user verification not proven, by TEST softcard fido2 maker"
	if r := f.closing(); r.Outcome != "accepted" || r.Evidence != want || r.Test {
		t.Errorf("got %+v, want evidence %q", r, want)
	}
	if client, err := f.client("anna", f.anna.Signer(softkey.Never)); err == nil {
		client.Close()
		t.Error("logged in without a touch")
	}
	f.refusedFor(keyNoTouch)
	for i, stricter := range []struct {
		change func(*policies.Policy)
		want   policies.Reason
	}{
		{func(p *policies.Policy) { p.Hardware.AAGUIDs = nil }, policies.AttestationAAGUID},
		{func(p *policies.Policy) { p.Hardware.FIDO2Issuers = nil }, policies.AttestationChain},
		{func(p *policies.Policy) {
			p.SSH.VerifyRequired = true
			p.Engineers[1].Keys[0].Evidence = "test:softkey+uv"
		}, policies.AttestationCredProtect},
	} {
		f.forgive()
		f.policy.Version = uint64(2*i + 2)
		f.newPolicy()
		client := f.login("anna", f.anna.Signer(softkey.Always))
		kept := f.policy
		kept.Engineers = slices.Clone(kept.Engineers)
		stricter.change(&f.policy)
		f.policy.Version++
		if r := f.newPolicy(); r.Cut != 1 || r.Rejected != 1 {
			t.Errorf("%s: record %+v", stricter.want, r)
		}
		if err := client.Wait(); err == nil {
			t.Errorf("%s: the session ended in order", stricter.want)
		}
		if r := f.closing(); r.Ended != endPolicy || r.Reason != stricter.want {
			t.Errorf("%s: %+v", stricter.want, r)
		}
		f.policy = kept
	}
}
