package skprovider

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"mayfly/internal/hint"
)

// newKey is a key that only this process uses: no program, no library.
func newKey(t *testing.T, s Settings) *Device {
	t.Helper()
	d, err := Create(t.TempDir(), Make{Issuer: maker(t).FIDO, AAGUID: Model}, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func code(err error) Code {
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return refused.Code
	}
	return 0
}

func TestNames(t *testing.T) {
	if got, want := Model.String(), "534f4654-5741-5245-2054-4553544b4559"; got != want {
		t.Errorf("got model %s, want %s", got, want)
	}
	d := newKey(t, Settings{})
	data, err := os.ReadFile(d.path(stateFile))
	if err != nil || !bytes.Contains(data, []byte("SOFTWARE")) || !strings.Contains(Library, "software") {
		t.Errorf("it does not say what it is: %v\n%s", err, data)
	}
	if info, err := os.Stat(d.path(stateFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
}

func TestCreate(t *testing.T) {
	d := newKey(t, Settings{})
	if _, err := Create(d.dir, Make{Issuer: maker(t).FIDO}, Settings{}); err == nil || !strings.Contains(err.Error(), "there is one") {
		t.Errorf("a second key in one place: got %v", err)
	}
	if _, err := Open(t.TempDir()); err == nil || hint.Of(err) == "" {
		t.Errorf("opening nothing: got %v, hint %q", err, hint.Of(err))
	}
	if o, err := Open(d.dir); err != nil || *o != *d {
		t.Errorf("got %+v, %v", o, err)
	}
	for name, s := range map[string]Settings{
		"touch": {Touch: "sometimes"}, "patience": {Patience: -1}, "flaw": {Flaws: []Flaw{"unknown"}},
		"short PIN": {PIN: "123"}, "long PIN": {PIN: strings.Repeat("1", maxPIN+1)},
	} {
		if _, err := Create(t.TempDir(), Make{Issuer: maker(t).FIDO}, s); err == nil {
			t.Errorf("%s: made", name)
		}
		if err := d.Set(func(to *Settings) { *to = s }); err == nil {
			t.Errorf("%s: set", name)
		}
	}
}

func TestBroken(t *testing.T) {
	d := newKey(t, Settings{Touch: TouchGiven})
	if err := os.WriteFile(d.path(stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Enroll(EnrollRequest{Application: "ssh:"}); err == nil || code(err) != 0 {
		t.Errorf("got %v", err)
	}
	if _, err := d.Tries(); err == nil {
		t.Error("read")
	}
}

func TestRequests(t *testing.T) {
	pin, wrong := testPIN, "000000"
	d := newKey(t, Settings{Touch: TouchGiven, PIN: pin})
	other := newKey(t, Settings{Touch: TouchGiven, PIN: pin})
	made, err := d.Enroll(EnrollRequest{Algorithm: Ed25519, Challenge: []byte("x"), Application: "ssh:", Flags: wantPresence | wantVerification, PIN: &pin})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		request EnrollRequest
		want    Code
	}{
		"algorithm":      {EnrollRequest{Algorithm: 2, Application: "ssh:"}, Unsupported},
		"no application": {EnrollRequest{Algorithm: ECDSA}, General},
		"PIN needed":     {EnrollRequest{Application: "ssh:", Flags: wantVerification}, PINRequired},
		"wrong PIN":      {EnrollRequest{Application: "ssh:", PIN: &wrong}, PINRequired},
		"resident":       {EnrollRequest{Application: "ssh:", Flags: wantResident}, PINRequired},
	} {
		if _, err := d.Enroll(tt.request); code(err) != tt.want {
			t.Errorf("%s: got %v, want code %d", name, err, tt.want)
		}
	}
	good := SignRequest{Algorithm: Ed25519, Data: []byte("x"), Application: "ssh:", Handle: made.Handle, Flags: wantPresence, PIN: &pin}
	if _, err := d.Sign(good); err != nil {
		t.Errorf("got %v", err)
	}
	for name, tt := range map[string]struct {
		device *Device
		change func(*SignRequest)
		want   Code
	}{
		"another device":      {other, func(*SignRequest) {}, DeviceNotFound},
		"another application": {d, func(r *SignRequest) { r.Application = "ssh:other" }, DeviceNotFound},
		"another algorithm":   {d, func(r *SignRequest) { r.Algorithm = ECDSA }, DeviceNotFound},
		"no handle":           {d, func(r *SignRequest) { r.Handle = nil }, DeviceNotFound},
		"changed handle": {d, func(r *SignRequest) {
			r.Handle = bytes.Clone(r.Handle)
			r.Handle[len(r.Handle)-1] ^= 1
		}, DeviceNotFound},
		"wrong PIN": {d, func(r *SignRequest) { r.PIN = &wrong }, PINRequired},
	} {
		r := good
		tt.change(&r)
		if signed, err := tt.device.Sign(r); code(err) != tt.want || signed.R != nil {
			t.Errorf("%s: got %v, want code %d", name, err, tt.want)
		}
	}
	if _, err := d.Residents(nil); code(err) != PINRequired {
		t.Errorf("resident keys without PIN: got %v", err)
	}
}

// Signatures of programs that run at once each have a counter of their own, and none goes back.
func TestCounter(t *testing.T) {
	const each = 8
	d := newKey(t, Settings{Touch: TouchGiven})
	made, err := d.Enroll(EnrollRequest{Algorithm: ECDSA, Challenge: []byte("x"), Application: "ssh:", Flags: wantPresence})
	if err != nil {
		t.Fatal(err)
	}
	r := SignRequest{Algorithm: ECDSA, Data: []byte("x"), Application: "ssh:", Handle: made.Handle, Flags: wantPresence}
	seen := make(chan uint32, 4*each)
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			before := uint32(0)
			for range each {
				s, err := d.Sign(r)
				if err != nil || s.Counter <= before {
					t.Errorf("got counter %d after %d, %v", s.Counter, before, err)
				}
				before = s.Counter
				seen <- s.Counter
			}
		})
	}
	work.Wait()
	close(seen)
	all := map[uint32]bool{}
	for c := range seen {
		all[c] = true
	}
	if len(all) != 4*each {
		t.Errorf("got %d counters of %d signatures", len(all), 4*each)
	}
	if entries, err := d.Journal(); err != nil || len(entries) != 4*each+1 {
		t.Errorf("got %d entries, %v", len(entries), err)
	}
	if err := d.Set(func(s *Settings) { s.Flaws = []Flaw{FlawCounterStands} }); err != nil {
		t.Fatal(err)
	}
	one, err1 := d.Sign(r)
	two, err2 := d.Sign(r)
	if err := errors.Join(err1, err2); err != nil || one.Counter != two.Counter {
		t.Errorf("got counters %d and %d, %v, want one that stands", one.Counter, two.Counter, err)
	}
}

// TestAuthData has the bytes of WebAuthn level 2, section 6.1.
func TestAuthData(t *testing.T) {
	got := authData{application: "ssh:", flags: 0x05, counter: 0x01020304}.bytes()
	hash := sha256.Sum256([]byte("ssh:"))
	if len(got) != 37 || !bytes.Equal(got[:32], hash[:]) || got[32] != 5 || binary.BigEndian.Uint32(got[33:]) != 0x01020304 {
		t.Errorf("got %x", got)
	}
}

// The documentation has every flaw, and the model that a policy lists.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Flaws {
		if !bytes.Contains(page, []byte("| `"+f+"` |")) {
			t.Errorf("docs/testing.md lacks flaw %s", f)
		}
	}
	for _, word := range []string{Model.String(), Variable} {
		if !bytes.Contains(page, []byte(word)) {
			t.Errorf("docs/testing.md lacks %s", word)
		}
	}
}
