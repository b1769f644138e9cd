package card

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/command"
	"mayfly/internal/hint"
)

var floor = Version{5, 7, 0}

func (f *fake) plan() Plan {
	return Plan{Slot: SlotAuthentication, Floor: floor, Rules: f.rules()}
}

func decided() *scripted { return &scripted{pin: goodPIN, newPIN: goodPIN, puk: goodPUK} }

// effects are the calls that change a card.
func effects(calls []string) []string {
	return slices.DeleteFunc(slices.Clone(calls), func(c string) bool {
		return !strings.HasPrefix(c, "set ") && !strings.HasPrefix(c, "store ") && !strings.HasPrefix(c, "generate") && c != "reset"
	})
}

func TestSetup(t *testing.T) {
	for _, tt := range []struct {
		slot      Slot
		algorithm Algorithm
	}{{SlotAuthentication, ""}, {SlotAuthentication, P384}, {0x82, Ed25519}} {
		f, who := newFake(t), decided()
		plan := f.plan()
		plan.Slot, plan.Algorithm = tt.slot, tt.algorithm
		made, err := Setup(t.Context(), f, who, plan, now)
		if err != nil {
			t.Errorf("%s %q: %v", tt.slot, tt.algorithm, err)
			continue
		}
		want := tt.algorithm
		if want == "" {
			want = DefaultAlgorithm
		}
		k := f.keys[tt.slot]
		if made.Type != want || made.Slot != tt.slot.String() || made.Serial != f.serial || !made.Proof.Touch || !made.Proof.Test || k.info.Algorithm != want {
			t.Errorf("%s %q: got %+v", tt.slot, tt.algorithm, made)
		}
		c, err := x509.ParseCertificate(k.cert)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
			t.Errorf("the certificate is not signed by its own key: %v", err)
		}
		if f.pin != goodPIN || f.puk != goodPUK || f.tries[0].Total != pinTries || f.tries[1].Total != pukTries {
			t.Errorf("got PIN %q, PUK %q, tries %+v", f.pin, f.puk, f.tries)
		}
		if string(f.stored) != string(f.manage) || string(f.manage) == string(factoryManagement) || len(f.manage) != managementBytes {
			t.Errorf("got management key %x, and %x kept", f.manage, f.stored)
		}
		if f.open {
			t.Error("the card stays open")
		}
		if !strings.Contains(who.agreed, "gone for good") {
			t.Errorf("the person agreed to %q: it does not say what repeated failures do", who.agreed)
		}
		for _, said := range append(who.said, who.agreed) {
			if strings.Contains(said, goodPIN) || strings.Contains(said, goodPUK) {
				t.Errorf("a secret is said: %q", said)
			}
		}
	}
}

// A card whose PIN and PUK are set keeps them, and its other keys.
func TestSetupKeepsSecrets(t *testing.T) {
	f, who := newFake(t), decided()
	if _, err := Setup(t.Context(), f, who, f.plan(), now); err != nil {
		t.Fatal(err)
	}
	first, manage := f.keys[SlotAuthentication].info.Public, string(f.manage)
	f.calls, f.tries[0].Total = nil, 7
	plan := f.plan()
	plan.Slot = 0x83
	who = &scripted{pin: goodPIN}
	if _, err := Setup(t.Context(), f, who, plan, now); err != nil {
		t.Fatal(err)
	}
	if got, want := effects(f.calls), []string{"generate 83", "set certificate 83"}; !slices.Equal(got, want) {
		t.Errorf("got effects %q, want %q", got, want)
	}
	if f.keys[SlotAuthentication].info.Public != first || string(f.manage) != manage {
		t.Error("what was there has changed")
	}
	if !strings.Contains(who.agreed, "keeps its PIN (7 tries)") {
		t.Errorf("the person agreed to %q", who.agreed)
	}
}

func TestSetupRefuses(t *testing.T) {
	for _, tt := range []struct {
		name       string
		prepare    func(*fake, *Plan)
		want, mend string
	}{
		{"old firmware", func(f *fake, _ *Plan) { f.firmware = Version{5, 4, 3} }, "the card has firmware 5.4.3, and 5.7.0 is the least", "--min-firmware"},
		{"ancient firmware", func(f *fake, p *Plan) { f.firmware, p.Floor = Version{4, 3, 5}, Version{} }, "does not say whether PIN and PUK", "newer card"},
		{"ed25519 too early", func(f *fake, p *Plan) {
			f.firmware, p.Floor, p.Algorithm = Version{5, 6, 0}, Version{5, 4, 0}, Ed25519
		}, "makes no Ed25519 keys", "--type p256"},
		{"a key is there", func(f *fake, _ *Plan) { f.put(SlotAuthentication, P256).cert = []byte{1} }, "there is a key in slot 9a", "--destroy-key-in-slot-9a"},
		{"an imported key is there", func(f *fake, _ *Plan) { f.put(SlotAuthentication, P256).info.Origin = Imported }, "there is a key in slot 9a", "--destroy-key-in-slot-9a"},
		{"nothing to destroy", func(_ *fake, p *Plan) { p.DestroyKey = true }, "no key in slot 9a to destroy", "leave --destroy-key-in-slot-9a out"},
		{"blocked PIN", func(f *fake, _ *Plan) { f.pin, f.tries[0].Left = "777888", 0 }, "the PIN is blocked", "unblock-pin"},
		{"blocked factory's PUK beside a key", func(f *fake, _ *Plan) {
			f.pin, f.tries[1].Left = "777888", 0
			f.put(SlotSignature, P256)
		}, "the PUK is blocked", "--reset-and-destroy-all-piv-keys"},
		{"blocked PUK", func(f *fake, _ *Plan) { f.puk, f.tries[1].Left = "77788811", 0 }, "the PUK is blocked", "--reset-and-destroy-all-piv-keys"},
	} {
		f, who := newFake(t), decided()
		plan := f.plan()
		tt.prepare(f, &plan)
		_, err := Setup(t.Context(), f, who, plan, now)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(hint.Of(err), tt.mend) || command.ExitCode(err) != command.Refused {
			t.Errorf("%s: got %v, hint %q, exit code %d; want %q, %q", tt.name, err, hint.Of(err), command.ExitCode(err), tt.want, tt.mend)
		}
		if got := effects(f.calls); len(got) > 0 || who.agreed != "" || len(who.asked) > 0 {
			t.Errorf("%s: refused after effects %q, agreement %q, questions %v", tt.name, got, who.agreed, who.asked)
		}
		if f.open {
			t.Errorf("%s: the card stays open", tt.name)
		}
	}
}

// What goes wrong before the first effect leaves the card as it was.
func TestSetupFailsBeforeEffects(t *testing.T) {
	no := errors.New("no")
	for _, tt := range []struct {
		name    string
		prepare func(*fake, *scripted)
		want    string
	}{
		{"disagrees", func(_ *fake, p *scripted) { p.disagree = no }, "no"},
		{"short PIN", func(_ *fake, p *scripted) { p.newPIN = "12345" }, "the PIN has 5 characters"},
		{"factory's PIN", func(_ *fake, p *scripted) { p.newPIN = factoryPIN }, "the first that anybody tries"},
		{"factory's PUK", func(_ *fake, p *scripted) { p.puk = factoryPUK }, "the first that anybody tries"},
		{"PUK is the PIN", func(_ *fake, p *scripted) { p.puk = goodPIN + "11" }, "begins with the PIN"},
		{"wrong PIN", func(f *fake, p *scripted) { f.pin, p.pin = "777888", "999888" }, "2 tries left"},
	} {
		f, who := newFake(t), decided()
		tt.prepare(f, who)
		_, err := Setup(t.Context(), f, who, f.plan(), now)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if got := effects(f.calls); len(got) > 0 {
			t.Errorf("%s: got effects %q", tt.name, got)
		}
	}
}

// Wherever a setup ends, no key can be used with a secret that others know, and another run finishes it.
func TestSetupInterrupted(t *testing.T) {
	for _, destructive := range []bool{false, true} {
		steps := 0
		for n := 0; ; n++ {
			f, who := newFake(t), decided()
			plan := f.plan()
			if destructive {
				f.put(0x84, P256)
				plan.ResetAll = true
			}
			begun := 0
			f.fail = func(call string) error {
				if len(effects([]string{call})) == 0 && !strings.HasPrefix(call, "sign") && !strings.HasPrefix(call, "attest") {
					return nil
				}
				if begun++; begun == n+1 {
					return fault(Removed, errors.New("pulled before: "+call))
				}
				return nil
			}
			_, err := Setup(t.Context(), f, who, plan, now)
			if err == nil {
				steps = n
				break
			}
			if what := f.halfOpen(); what != "" && !(destructive && n == 0) { // before the reset it is what it was
				t.Errorf("step %d, %v: the card has %s", n, err, what)
			}
			if !strings.Contains(hint.Of(err), "run the same again") {
				t.Errorf("step %d: got hint %q", n, hint.Of(err))
			}
			f.fail = nil
			if _, err := Setup(t.Context(), f, decided(), plan, now); err != nil {
				t.Errorf("step %d: the second run: %v", n, err)
			}
			if f.pin != goodPIN || f.puk != goodPUK || len(f.keys) != 1 || f.keys[SlotAuthentication].cert == nil {
				t.Errorf("step %d: the second run left PIN %q, PUK %q, %d keys", n, f.pin, f.puk, len(f.keys))
			}
		}
		if want := map[bool]int{false: 10, true: 11}[destructive]; steps != want {
			t.Errorf("destructive %v: got %d steps, want %d", destructive, steps, want)
		}
	}
}

// A card on which another program keeps a key: no step opens that key, what lies open is named for as long as it does, and what is not
// the factory's is kept.
func TestSetupBesideAnotherKey(t *testing.T) {
	const ownPIN, ownPUK = "735190", "73519064"
	for _, tt := range []struct {
		name     string
		pin, puk string
		agreed   []string
		effects  []string // before the management key
		pinTries int
	}{
		{"own PIN, factory's PUK", ownPIN, factoryPUK, []string{"keeps its PIN (3 tries)", "gets a new PUK (3 tries)", "the key in slot 9c can be used with a PIN that the factory's PUK sets"}, []string{"set puk"}, 3},
		{"factory's PIN, own PUK", factoryPIN, ownPUK, []string{"gets a new PIN (3 tries)", "keeps its PUK (3 tries)", "the key in slot 9c can be used with the factory's PIN"}, []string{"set pin"}, 3},
		{"both the factory's", factoryPIN, factoryPUK, []string{"a new PIN with 5 tries", "the key in slot 9c can be used with the factory's PIN"}, []string{"set tries", "set pin", "set puk"}, 5},
		{"both own", ownPIN, ownPUK, []string{"keeps its PIN (3 tries) and its PUK (3 tries)"}, nil, 3},
	} {
		for n := 0; ; n++ {
			f := newFake(t)
			f.pin, f.puk = tt.pin, tt.puk
			f.put(SlotSignature, P256)
			begun, opened := 0, ""
			f.fail = func(call string) error {
				if f.pin == factoryPIN && tt.pin != factoryPIN || f.puk == factoryPUK && tt.puk != factoryPUK {
					opened = call
				}
				if len(effects([]string{call})) == 0 && !strings.HasPrefix(call, "sign") {
					return nil
				}
				if begun++; begun == n+1 {
					return fault(Removed, errors.New("pulled before: "+call))
				}
				return nil
			}
			who := &scripted{pin: tt.pin, newPIN: goodPIN, puk: goodPUK}
			_, err := Setup(t.Context(), f, who, f.plan(), now)
			if opened != "" {
				t.Errorf("%s, step %d: at %q a secret that was the person's own was the factory's", tt.name, n, opened)
			}
			for _, want := range tt.agreed {
				if !strings.Contains(who.agreed, want) {
					t.Errorf("%s: the person agreed to %q, want %q", tt.name, who.agreed, want)
				}
			}
			if err == nil {
				got := effects(f.calls)
				if want := append(slices.Clone(tt.effects), "store management", "set management", "generate 9a", "set certificate 9a"); !slices.Equal(got, want) {
					t.Errorf("%s: got effects %q, want %q", tt.name, got, want)
				}
				if f.tries[0].Total != tt.pinTries || f.pin == factoryPIN || f.puk == factoryPUK || tt.pin == ownPIN && f.pin != ownPIN || tt.puk == ownPUK && f.puk != ownPUK {
					t.Errorf("%s: got PIN %q, PUK %q, tries %+v", tt.name, f.pin, f.puk, f.tries)
				}
				break
			}
			open := f.pin == factoryPIN || f.puk == factoryPUK
			if says := strings.Contains(err.Error(), "the key in slot 9c can be used") && strings.Contains(hint.Of(err), "at once"); says != open {
				t.Errorf("%s, step %d: PIN %q, PUK %q, and it says %q", tt.name, n, f.pin, f.puk, err)
			}
			if denies := strings.Contains(hint.Of(err), "no key on the card can be used with a PIN that others know"); denies == open {
				t.Errorf("%s, step %d: PIN %q, PUK %q, and the hint is %q", tt.name, n, f.pin, f.puk, hint.Of(err))
			}
			f.fail = nil
			if _, err := Setup(t.Context(), f, &scripted{pin: f.pin, newPIN: goodPIN, puk: goodPUK}, f.plan(), now); err != nil {
				t.Errorf("%s, step %d: the second run: %v", tt.name, n, err)
			}
			if f.pin == factoryPIN || f.puk == factoryPUK || f.keys[SlotAuthentication].cert == nil || f.keys[SlotSignature] == nil {
				t.Errorf("%s, step %d: the second run left PIN %q, PUK %q, %d keys", tt.name, n, f.pin, f.puk, len(f.keys))
			}
		}
	}
}

// Who interrupts it does not wait for the end of it.
func TestSetupCancelled(t *testing.T) {
	f, who := newFake(t), decided()
	ctx, cancel := context.WithCancel(t.Context())
	f.fail = func(call string) error {
		if call == "set puk" {
			cancel()
		}
		return nil
	}
	if _, err := Setup(ctx, f, who, f.plan(), now); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if len(f.keys) > 0 || f.open {
		t.Errorf("it went on: %q", f.calls)
	}
}

// A card that makes another key than it was asked for, or whose attestation proves less, is not done.
func TestSetupBelievesNoCard(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*fake)
		want    string
	}{
		{"touch cached", func(f *fake) { f.keys[SlotAuthentication].info.Touch = Cached }, "a key of its own liking"},
		{"another type", func(f *fake) { *f.keys[SlotAuthentication] = *f.put(SlotAuthentication, P384) }, "a key of its own liking"},
		{"foreign issuer", func(*fake) {}, "attestation_chain"},
		{"no touch", func(f *fake) { f.touched = false }, "not touched in time"},
	} {
		f := newFake(t)
		plan := f.plan()
		if tt.name == "foreign issuer" {
			plan.Rules = newFake(t).rules()
		}
		f.fail = func(call string) error {
			if strings.HasPrefix(call, "info") && f.keys[SlotAuthentication] != nil {
				tt.prepare(f)
			}
			return nil
		}
		_, err := Setup(t.Context(), f, decided(), plan, now)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if k := f.keys[SlotAuthentication]; k != nil && k.cert != nil {
			t.Errorf("%s: it has a certificate", tt.name)
		}
	}
}
