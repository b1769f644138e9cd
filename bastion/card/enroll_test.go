package card

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/hint"
	"mayfly/policies/enrolment"
)

const challengeLine = "mayfly-challenge/1 spring anna 00112233445566778899aabbccddeeff 2026-11-20T11:00:00Z\n"

func challenge(t testing.TB) hardkey.Challenge {
	t.Helper()
	c, err := ReadChallenge([]byte(challengeLine))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEnroll(t *testing.T) {
	f, who := newFake(t), decided()
	f.pin = goodPIN
	f.put(SlotAuthentication, P256)
	e, err := Enroll(t.Context(), f, who, 0, SlotAuthentication, challenge(t), f.rules(), now)
	if err != nil || e.Rejection != nil {
		t.Fatalf("got %v, %v", err, e.Rejection)
	}
	if p := e.Proof; p.Serial != f.serial || !p.Touch || p.PINPolicy != Once || p.Slot != "9a" {
		t.Errorf("got %+v", p)
	}
	said := strings.Join(who.said, "\n")
	if !strings.Contains(said, "fleet spring enrols the key in slot 9a of card 4711 for anna") {
		t.Errorf("the person was told %q", said)
	}
	if len(who.asked) != 1 || !strings.Contains(who.asked[0].Text, "anna in fleet spring") {
		t.Errorf("the person was asked %+v", who.asked)
	}
	if !strings.HasSuffix(who.asked[0].Text, "(tries left: 3)") || strings.Contains(said, "LAST try") {
		t.Errorf("the person was asked %+v and told %q", who.asked, said)
	}
	f.tries[0].Left, who = 1, decided()
	if _, err := Enroll(t.Context(), f, who, 0, SlotAuthentication, challenge(t), f.rules(), now); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(who.asked[0].Text, "(tries left: 1)") || !strings.Contains(strings.Join(who.said, "\n"), "LAST try") {
		t.Errorf("at the last try: asked %+v and told %q", who.asked, who.said)
	}
	data, err := enrolment.New(e.Challenge, e.Public, e.Shown).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enrolment.Parse(data); err != nil {
		t.Errorf("the request cannot be read: %v", err)
	}
	if f.open {
		t.Error("the card stays open")
	}
}

// What the fleet would refuse is known before the request is written, by the fleet's own reason.
func TestEnrollForesees(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		prepare    func(*fake, *fakeKey, *hardkey.Rules)
	}{
		{"imported", hardkey.Imported, func(_ *fake, k *fakeKey, _ *hardkey.Rules) { k.info.Origin = Imported }},
		{"touch never", hardkey.TouchNever, func(_ *fake, k *fakeKey, _ *hardkey.Rules) { k.info.Touch = Never }},
		{"touch cached", hardkey.TouchCached, func(_ *fake, k *fakeKey, _ *hardkey.Rules) { k.info.Touch = Cached }},
		{"PIN never", hardkey.PINPolicy, func(_ *fake, k *fakeKey, _ *hardkey.Rules) { k.info.PINPolicy = Never }},
		{"foreign root", hardkey.Chain, func(_ *fake, _ *fakeKey, r *hardkey.Rules) { r.TestIssuers, r.Test = nil, false }},
		{"firmware", hardkey.Firmware, func(_ *fake, _ *fakeKey, r *hardkey.Rules) { r.MinFirmware = "5.8.0" }},
	} {
		f := newFake(t)
		f.pin = goodPIN
		rules := f.rules()
		tt.prepare(f, f.put(SlotAuthentication, P256), &rules)
		e, err := Enroll(t.Context(), f, decided(), 0, SlotAuthentication, challenge(t), rules, now)
		if err != nil || e.Rejection == nil || e.Rejection.Reason != tt.want {
			t.Errorf("%s: got %v, %+v, want %s", tt.name, err, e.Rejection, tt.want)
		}
	}
}

func TestEnrollFails(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*fake, *scripted)
		fault   Fault
		want    string
	}{
		{"no key", func(f *fake, _ *scripted) { f.keys = nil }, NoKey, "there is no key in slot 9a of card 4711"},
		{"wrong PIN", func(_ *fake, p *scripted) { p.pin = "111222" }, WrongPIN, "2 tries left"},
		{"blocked PIN", func(f *fake, _ *scripted) { f.tries[0].Left = 0 }, BlockedPIN, "blocked"},
		{"no touch", func(f *fake, _ *scripted) { f.touched = false }, NoTouch, "not touched"},
		{"no card", func(f *fake, _ *scripted) { f.states[0].Present = false }, Removed, "no card in any reader"},
		{"no reader", func(f *fake, _ *scripted) { f.states = nil }, NoReader, "there is no reader"},
		{"busy", func(f *fake, _ *scripted) {
			f.fail = func(string) error { return fault(Busy, errors.New(Says(Busy))) }
		}, Busy, "another program"},
	} {
		f, who := newFake(t), decided()
		f.pin = goodPIN
		f.put(SlotAuthentication, P256)
		tt.prepare(f, who)
		_, err := Enroll(t.Context(), f, who, 0, SlotAuthentication, challenge(t), f.rules(), now)
		if FaultOf(err) != tt.fault || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %v (%s), hint %q; want %s, %q", tt.name, err, FaultOf(err), hint.Of(err), tt.fault, tt.want)
		}
		if f.open {
			t.Errorf("%s: the card stays open", tt.name)
		}
	}
}

func TestReadChallenge(t *testing.T) {
	for _, text := range []string{"", "\n", "hello\n", strings.TrimSuffix(challengeLine, "\n"), challengeLine + challengeLine, strings.Replace(challengeLine, "anna", "Anna", 1)} {
		if _, err := ReadChallenge([]byte(text)); err == nil || hint.Of(err) == "" {
			t.Errorf("%q: got %v, hint %q; want an error with a hint", text, err, hint.Of(err))
		}
	}
	if c := challenge(t); c.Fleet != "spring" || c.Name != "anna" || !c.Made.Equal(time.Date(2026, 11, 20, 11, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", c)
	}
}

func TestEnrollFIDO2Refuses(t *testing.T) {
	if _, err := EnrollFIDO2([]byte("ssh-ed25519 AAAA anna"), nil, challenge(t), hardkey.Rules{}, now); err == nil || !strings.Contains(err.Error(), "no public key of a security key") {
		t.Errorf("a software key: got %v", err)
	}
	e, err := EnrollFIDO2([]byte("sk-ssh-ed25519@openssh.com AAAA anna"), []byte("x"), challenge(t), hardkey.Rules{}, now)
	if err != nil || e.Rejection == nil || e.Rejection.Reason != hardkey.Malformed {
		t.Errorf("garbage: got %v, %+v, want %s", err, e.Rejection, hardkey.Malformed)
	}
}

// Find takes the card that is meant, and never guesses.
func TestFind(t *testing.T) {
	f := newFake(t)
	if _, _, err := Find(t.Context(), f, 999); err == nil || !strings.Contains(err.Error(), "no card has the serial number 999: there is 4711") {
		t.Errorf("another serial: got %v", err)
	}
	token, r, err := Find(t.Context(), f, 4711)
	if err != nil || r.Name != reader {
		t.Fatalf("got %v, %+v", err, r)
	}
	token.Close()
	f.states = append(f.states, Reader{Name: "Reader 1", Present: true})
	two := &pair{f, newFake(t)}
	two.second.serial = 4712
	if _, _, err := Find(t.Context(), two, 0); err == nil || !strings.Contains(err.Error(), "several cards: 4711, 4712") || hint.Of(err) != "--serial says which" {
		t.Errorf("two cards: got %v, hint %q", err, hint.Of(err))
	}
	token, r, err = Find(t.Context(), two, 4712)
	if err != nil || r.Name != "Reader 1" {
		t.Fatalf("the second: got %v, %+v", err, r)
	}
	token.Close()
	two.second.fail = failing(Busy)
	if _, _, err := Find(t.Context(), two, 0); err == nil || !strings.Contains(err.Error(), "and one that another program has") {
		t.Errorf("one of two is busy: got %v", err)
	}
	two.second.fail = failing(NoPIV)
	if token, _, err = Find(t.Context(), two, 0); err != nil {
		t.Fatalf("one of two has no PIV: got %v", err)
	}
	token.Close()
	if two.fake.open || two.second.open {
		t.Error("a card stays open")
	}
}
