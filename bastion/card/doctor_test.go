package card

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// healthy is a machine as it should be.
func healthy() Machine {
	return Machine{
		System:  "linux",
		Service: func() (string, bool) { return "/usr/sbin/pcscd", true },
		Socket:  func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", nil },
		Holders: func() []string { return nil },
	}
}

// ready is a card as setup leaves one.
func ready(t testing.TB) *fake {
	t.Helper()
	f := newFake(t)
	if _, err := Setup(t.Context(), f, decided(), f.plan(), now); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDoctorHealthy(t *testing.T) {
	f := ready(t)
	f.calls = nil
	d := Doctor(t.Context(), f, healthy(), floor, now, func(Finding) {})
	if d.Failures != 0 || d.Warnings != 0 || len(d.Findings) < 9 {
		t.Errorf("got %+v", d)
	}
	for _, finding := range d.Findings {
		if finding.Hint != "" {
			t.Errorf("%s: well, and has the hint %q", finding.Check, finding.Hint)
		}
	}
	for _, c := range f.calls {
		if c == "verify" || strings.HasPrefix(c, "sign") || len(effects([]string{c})) > 0 {
			t.Errorf("the doctor did %q", c)
		}
	}
	if f.open {
		t.Error("the card stays open")
	}
}

func failing(f Fault) func(string) error {
	return func(string) error { return fault(f, errors.New("as "+string(f))) }
}

func TestDoctorFinds(t *testing.T) {
	for _, tt := range []struct {
		name       string
		prepare    func(*fake, *Machine)
		check      string
		health     Health
		want, mend string
	}{
		{"not running", func(_ *fake, m *Machine) {
			m.Socket = func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", ErrNoSocket }
		}, "socket", Fails, "pcscd does not run", "systemctl enable --now pcscd.socket"},
		{"ended", func(_ *fake, m *Machine) {
			m.Socket = func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", ErrSocketDead }
		}, "socket", Fails, "left its socket", "systemctl restart"},
		{"permission", func(_ *fake, m *Machine) {
			m.Socket = func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", ErrSocketDenied }
		}, "socket", Fails, "this user may not connect", "mode"},
		{"full socket", func(_ *fake, m *Machine) {
			m.Socket = func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", ErrSocketFull }
		}, "socket", Fails, "pcscd does not answer", "systemctl restart pcscd"},
		{"strange socket", func(_ *fake, m *Machine) {
			m.Socket = func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", errors.New("strange") }
		}, "socket", Fails, "strange", "systemctl status"},
		{"no reader", func(f *fake, _ *Machine) { f.states = nil }, "reader", Fails, "there is no reader", "ykman config usb --enable PIV"},
		{"no card", func(f *fake, _ *Machine) { f.states[0].Present = false }, "card", Fails, "no card in any reader", "put a card in"},
		{"mute", func(f *fake, _ *Machine) { f.states[0].Mute = true }, "reader", Fails, "does not answer to being powered", "right way round"},
		{"scdaemon", func(f *fake, m *Machine) {
			f.states[0].InUse, f.fail = true, failing(Busy)
			m.Holders = func() []string { return []string{"scdaemon"} }
		}, "card", Fails, "scdaemon, which runs, has it open", "disable-scdaemon"},
		{"exclusive", func(f *fake, _ *Machine) { f.states[0].Exclusive, f.fail = true, failing(Busy) }, "card", Fails, "another program has it for itself", "pcsc-shared does not help"},
		{"ours", func(f *fake, m *Machine) {
			f.states[0].Exclusive, f.fail = true, failing(Busy)
			m.Holders = func() []string { return []string{OurName} }
		}, "card", Fails, "bastion-agent, which runs, has it for itself", "touch the key, or wait"},
		{"no PIV", func(f *fake, _ *Machine) { f.fail = failing(NoPIV) }, "piv", Fails, "as no_piv", "switch PIV on"},
		{"garbage", func(f *fake, _ *Machine) { f.fail = failing(Garbage) }, "card", Fails, "as card_garbage", "do not use this card"},
		{"old firmware", func(f *fake, _ *Machine) { f.firmware = Version{5, 4, 3} }, "firmware", Fails, "has firmware 5.4.3", "newer card"},
		{"blocked PIN", func(f *fake, _ *Machine) { f.tries[0].Left = 0 }, "pin", Fails, "the PIN is blocked", "unblock-pin"},
		{"few tries", func(f *fake, _ *Machine) { f.tries[0].Left = 1 }, "pin", Warn, "1 of 5 tries left for the PIN", "the right one"},
		{"factory PIN", func(f *fake, _ *Machine) { f.pin = factoryPIN }, "pin", Fails, "the PIN is the factory's", "bastion-agent setup"},
		{"a key lies open", func(f *fake, _ *Machine) { f.pin = factoryPIN; f.put(SlotSignature, P256) }, "pin", Fails, "the keys in slots 9a, 9c can be used with the factory's PIN", "at once"},
		{"a key without a PIN does not", func(f *fake, _ *Machine) {
			f.pin = factoryPIN
			f.put(SlotCard, P256).info.PINPolicy = Never
		}, "pin", Fails, "the key in slot 9a can be used with the factory's PIN", "at once"},
		{"a key behind the factory's PUK", func(f *fake, _ *Machine) { f.puk = factoryPUK }, "puk", Fails, "the key in slot 9a can be used with a PIN that the factory's PUK sets", "at once"},
		{"blocked PUK", func(f *fake, _ *Machine) { f.tries[1].Left = 0 }, "puk", Fails, "the PUK is blocked", "while the PIN works nothing is lost"},
		{"factory PUK", func(f *fake, _ *Machine) { f.puk = factoryPUK }, "puk", Fails, "the PUK is the factory's", "bastion-agent setup"},
		{"factory management key", func(f *fake, _ *Machine) { f.manage = factoryManagement }, "management_key", Fails, "the management key is the factory's", "bastion-agent setup"},
		{"no key", func(f *fake, _ *Machine) { f.keys = nil }, "key", Fails, "no key that a fleet would take", "bastion-agent setup"},
		{"no touch", func(f *fake, _ *Machine) { f.keys[SlotAuthentication].info.Touch = Never }, "key", Fails, "it signs without a touch", "never change"},
		{"touch cached", func(f *fake, _ *Machine) { f.keys[SlotAuthentication].info.Touch = Cached }, "key", Fails, "for 15 seconds", "never change"},
		{"no PIN", func(f *fake, _ *Machine) { f.keys[SlotAuthentication].info.PINPolicy = Never }, "key", Fails, "it signs without a PIN", "never change"},
		{"imported", func(f *fake, _ *Machine) { f.keys[SlotAuthentication].info.Origin = Imported }, "key", Fails, "made elsewhere", "never change"},
		{"RSA", func(f *fake, _ *Machine) {
			f.keys[SlotAuthentication].info = Info{Algorithm: Other, Touch: Always, PINPolicy: Once, Origin: Generated, Public: "RSA"}
		}, "key", Fails, "a type that no fleet takes", "never change"},
		{"no certificate", func(f *fake, _ *Machine) { f.keys[SlotAuthentication].cert = nil }, "key", Warn, "no certificate", "bastion-agent setup finishes it"},
	} {
		f, m := ready(t), healthy()
		tt.prepare(f, &m)
		d := Doctor(t.Context(), f, m, floor, now, func(Finding) {})
		if !slices.ContainsFunc(d.Findings, func(f Finding) bool {
			return f.Check == tt.check && f.Health == tt.health && strings.Contains(f.What, tt.want) && strings.Contains(f.Hint, tt.mend)
		}) {
			t.Errorf("%s: got %+v, want %s %s %q, hint %q", tt.name, d.Findings, tt.health, tt.check, tt.want, tt.mend)
		}
		if f.open {
			t.Errorf("%s: the card stays open", tt.name)
		}
	}
}

// unreachable is a machine where PC/SC itself does not answer.
type unreachable struct {
	*fake
	fault Fault
}

func (u unreachable) Readers(context.Context) ([]Reader, error) {
	return nil, fault(u.fault, errors.New("as "+string(u.fault)))
}

func TestDoctorUnreachable(t *testing.T) {
	for f, check := range map[Fault]string{NoService: "pcsc", Denied: "pcsc", TooLong: "pcsc", NotBuilt: "program"} {
		for _, system := range []string{"linux", "darwin"} {
			m := healthy()
			m.System = system
			d := Doctor(t.Context(), unreachable{newFake(t), f}, m, floor, now, func(Finding) {})
			last := d.Findings[len(d.Findings)-1]
			if d.Failures != 1 || last.Check != check || last.Health != Fails || last.Hint == "" {
				t.Errorf("%s on %s: got %+v", f, system, d.Findings)
			}
		}
	}
}

// What is found is shown at once, and in the order of the report; where the card stops to answer, nothing else is asked of it.
func TestDoctorShowsWhatItHas(t *testing.T) {
	f := ready(t)
	var shown []Finding
	f.fail = func(call string) error {
		if call == "info 82" {
			if len(shown) < 6 || shown[len(shown)-1].Check != "key" {
				t.Errorf("before the card hangs: shown is %+v", shown)
			}
			return fault(TooLong, errors.New("no end"))
		}
		return nil
	}
	d := Doctor(t.Context(), f, healthy(), floor, now, func(f Finding) { shown = append(shown, f) })
	if !slices.Equal(shown, d.Findings) || d.Failures != 1 || shown[len(shown)-1].What != "no end" || shown[len(shown)-1].Hint == "" {
		t.Errorf("shown %+v\nreport %+v", shown, d.Findings)
	}
	if f.calls[len(f.calls)-1] != "info 82" || f.open {
		t.Errorf("it went on: %q", f.calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.calls = nil
	d = Doctor(ctx, f, healthy(), floor, now, func(Finding) {})
	if len(f.calls) > 0 || d.Failures != 1 || !strings.Contains(d.Findings[len(d.Findings)-1].What, "not looked at: context canceled") {
		t.Errorf("ended before: got %+v, calls %q", d.Findings, f.calls)
	}
}

// A card for something else beside a good one is no failure.
func TestDoctorOtherCard(t *testing.T) {
	two := &pair{ready(t), newFake(t)}
	two.states = append(two.states, Reader{Name: "Reader 1", Present: true})
	two.second.fail = failing(NoPIV)
	d := Doctor(t.Context(), two, healthy(), floor, now, func(Finding) {})
	if d.Failures != 0 || d.Warnings != 1 {
		t.Errorf("got %+v", d.Findings)
	}
}

func TestDoctorNotInstalled(t *testing.T) {
	m := healthy()
	m.Service = func() (string, bool) { return "", false }
	m.Socket = func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", ErrNoSocket }
	d := Doctor(t.Context(), unreachable{newFake(t), NoService}, m, floor, now, func(Finding) {})
	if d.Failures != 1 {
		t.Errorf("said more than once: %+v", d.Findings)
	}
	m.Service = func() (string, bool) { return "/usr/sbin/pcscd", true }
	m.Socket = func(context.Context) (string, error) { return "/run/pcscd/pcscd.comm", ErrSocketDenied }
	if d := Doctor(t.Context(), unreachable{newFake(t), NoService}, m, floor, now, func(Finding) {}); d.Failures != 1 || d.Findings[len(d.Findings)-1].Check != "socket" {
		t.Errorf("a socket that is not permitted: got %+v", d.Findings)
	}
	if f := d.Findings[1]; f.Check != "pcscd" || f.Health != Fails || f.What != "pcscd is not installed" || f.Hint != "apt-get install pcscd libccid" {
		t.Errorf("got %+v", d.Findings)
	}
}

// Every fault has its mend.
func TestMends(t *testing.T) {
	for _, f := range []Fault{NoService, Denied, NoReader, Removed, Busy, NoPIV, WrongPIN, BlockedPIN, NoTouch, NoKey, Refused, TooLong, Garbage, NotBuilt} {
		if mends[f] == "" {
			t.Errorf("%s: no mend", f)
		}
	}
}
