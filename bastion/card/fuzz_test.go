package card

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"io"
	"testing"

	"mayfly/bastion/agent"
)

// liar is a card that answers with bytes of a stranger's choice.
type liar struct {
	*fake
	answers []byte
}

// next is the next answer: a length, and as much.
func (l *liar) next() []byte {
	if len(l.answers) == 0 {
		return nil
	}
	n := min(int(l.answers[0]), len(l.answers)-1)
	answer := l.answers[1 : 1+n]
	l.answers = l.answers[1+n:]
	return answer
}

func (l *liar) Info(Slot) (Info, error) {
	var public crypto.PublicKey
	algorithm := Other
	switch b := l.next(); {
	case len(b) == 0:
		return Info{}, none(SlotAuthentication)
	case b[0] == 1:
		public, algorithm = ed25519.PublicKey(b[1:]), Ed25519
	case b[0] == 2:
		public, algorithm = l.keys[SlotAuthentication].info.Public, P256
	case b[0] == 3:
		public = b
	}
	return Info{Algorithm: algorithm, Touch: Always, PINPolicy: Once, Origin: Generated, Public: public}, nil
}

func (l *liar) Certificate(Slot) ([]byte, error)   { return l.next(), nil }
func (l *liar) Attest(Slot) ([]byte, error)        { return l.next(), nil }
func (l *liar) DeviceCertificate() ([]byte, error) { return l.next(), nil }

func (l *liar) Sign(Slot, crypto.PublicKey, []byte, crypto.Hash, func() (string, error)) ([]byte, error) {
	return l.next(), nil
}

// FuzzCardAnswers has a card, and the process that uses it, answer anything: nothing panics, and nothing passes for a signature.
func FuzzCardAnswers(f *testing.F) {
	f.Add([]byte("\x05\x61\x11\x4f\x90\x00\x09\x05\x01\x00\x06\x02\x05\x04\x90\x00"))
	f.Add([]byte("\x21\x01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x40bbbbbbbb"))
	f.Add([]byte("\x01\x02\x08\x30\x06\x02\x01\x01\x02\x01\x01"))
	f.Add([]byte("{}\n{\"keys\":[{\"slot\":\"9a\",\"public\":\"AAAA\",\"comment\":\"x\"}]}\n{\"ask\":true,\"tries\":3}\n{\"signature\":\"AAAA\"}\n"))
	f.Add([]byte("{\"fault\":\"wrong_pin\",\"left\":-1,\"error\":\"x\"}\n"))
	base := newFake(f)
	public, err := SSHKey(base.put(SlotAuthentication, P256).info.Public)
	if err != nil {
		f.Fatal(err)
	}
	key := agent.Key{Public: public, Slot: "9a"}
	give := func(int) ([]byte, error) { return []byte(goodPIN), nil }
	f.Fuzz(func(t *testing.T, data []byte) {
		base.t = t
		l := &liar{fake: base, answers: data}
		if s, err := ReadSecrets(func([]byte) ([]byte, error) { return l.next(), nil }); err != nil && s != (Secrets{}) {
			t.Errorf("an error, and %+v", s)
		}
		for _, version := range []Version{{5, 7, 4}, {4, 3, 5}} {
			base.firmware, base.open, base.calls = version, true, nil
			s := &session{token: &liar{fake: base, answers: data}, serial: 1}
			if keys, err := s.Keys(); err == nil {
				for _, k := range keys {
					if _, err := s.Sign(t.Context(), k, []byte("data"), give); err == nil && k.Public.Type() != "ssh-ed25519" {
						t.Errorf("%q passes for a signature", data)
					}
				}
			}
			if shown, err := show(&liar{fake: base, answers: data}, SlotAuthentication, base.keys[SlotAuthentication].info.Public, challenge(t), func() (string, error) { return goodPIN, nil }); err == nil {
				t.Errorf("%q passes for evidence: %+v", data, shown)
			}
		}
		p := &process{end: func() {}, in: io.NopCloser(nil), lines: newLines(bytes.NewReader(data), io.Discard)}
		if keys, err := p.Keys(); err == nil && len(keys) > maxKeys {
			t.Errorf("got %d keys", len(keys))
		}
		if _, err := p.Sign(t.Context(), key, []byte("data"), give); err == nil {
			t.Errorf("%q passes for a signature", data)
		}
	})
}

// FuzzServe is what the process makes of its input.
func FuzzServe(f *testing.F) {
	f.Add([]byte("{\"do\":\"open\",\"reader\":\"Reader 0\"}\n{\"do\":\"keys\"}\n{\"do\":\"sign\",\"slot\":\"9a\",\"public\":\"AAAA\",\"data\":\"AAAA\"}\n{\"pin\":\"AAAA\"}\n"))
	f.Add([]byte("{\"do\":\"open\"}\n{\"do\":\"open\"}\n{\"do\":\"\"}\n"))
	f.Add([]byte("null\n[]\n\n"))
	base := newFake(f)
	base.put(SlotAuthentication, P256)
	f.Fuzz(func(t *testing.T, data []byte) {
		base.t, base.open, base.calls = t, false, nil
		Serve(t.Context(), bytes.NewReader(data), io.Discard, base) // its error is what it says of the input
		if base.open {
			t.Error("the card stays open")
		}
	})
}
