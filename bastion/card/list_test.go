package card

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// pair is two readers, each with a fake.
type pair struct {
	*fake
	second *fake
}

func (p *pair) Open(ctx context.Context, name string) (Token, error) {
	if name == reader {
		return p.fake.Open(ctx, name)
	}
	return p.second.Open(ctx, name)
}

func TestList(t *testing.T) {
	f := newFake(t)
	f.put(SlotAuthentication, P256).cert = []byte{1}
	f.put(0x95, Ed25519).info.Touch = Cached
	f.put(SlotKeyManagement, P256).info = Info{Algorithm: Other, PINPolicy: Once, Touch: Never, Origin: Imported, Public: "an RSA key"}
	f.states = append(f.states, Reader{Name: "Reader 1", Present: true}, Reader{Name: "Reader 2"})
	two := &pair{f, newFake(t)}
	two.second.fail = func(string) error { return fault(Busy, errors.New(Says(Busy))) }
	l, err := List(t.Context(), two)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Cards) != 2 {
		t.Fatalf("got %d cards, want 2: %+v", len(l.Cards), l)
	}
	first, second := l.Cards[0], l.Cards[1]
	if first.Serial != 4711 || first.Firmware != "5.7.4" || len(first.Keys) != 3 || first.Fault != "" {
		t.Fatalf("got %+v", first)
	}
	if k := first.Keys[0]; k.Slot != "9a" || k.Type != P256 || k.Touch != Always || k.Origin != Generated || !k.Certificate || !strings.HasSuffix(k.Public, " card-4711-slot-9a") || !strings.HasPrefix(k.Fingerprint, "SHA256:") {
		t.Errorf("9a: got %+v", k)
	}
	if k := first.Keys[1]; k.Slot != "95" || k.Type != Ed25519 || k.Touch != Cached || k.Certificate {
		t.Errorf("95: got %+v", k)
	}
	if k := first.Keys[2]; k.Slot != "9d" || k.Type != Other || k.Public != "" {
		t.Errorf("9d: got %+v", k)
	}
	if second.Fault != Busy || second.Error == "" || second.Hint == "" {
		t.Errorf("busy: got %+v", second)
	}
	if f.open {
		t.Error("the card stays open")
	}
}

// A card that goes in the middle, or says nonsense of one slot.
func TestListFaults(t *testing.T) {
	f := newFake(t)
	f.put(SlotAuthentication, P256)
	f.fail = func(call string) error {
		if call == "info 82" {
			return fault(Garbage, errors.New("it makes no sense"))
		}
		return nil
	}
	l, err := List(t.Context(), f)
	if err != nil || len(l.Cards[0].Keys) != 2 || l.Cards[0].Keys[1].Error == "" || l.Cards[0].Fault != "" {
		t.Errorf("one slot: got %v, %+v", err, l)
	}
	f.fail = func(call string) error {
		if call == "info 82" {
			return fault(Removed, errors.New(Says(Removed)))
		}
		return nil
	}
	l, err = List(t.Context(), f)
	if err != nil || l.Cards[0].Fault != Removed || l.Cards[0].Error == "" {
		t.Errorf("pulled: got %v, %+v", err, l)
	}
}
