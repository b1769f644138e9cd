package pivcard

import (
	"sync"
	"testing"
)

// Commands, looks, changes from outside, touches and power cycles come at once; each command is answered, and every touch is accounted for.
func TestAtOnce(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	c.generate(0x11, 0x9A, 1, 2)
	if err := c.card.KeepIn(t.TempDir() + "/card.json"); err != nil {
		t.Fatal(err)
	}
	if err := c.card.Touch.SetMode(TouchAuto); err != nil {
		t.Fatal(err)
	}
	const rounds = 20
	var all sync.WaitGroup
	repeat := func(f func(n int)) {
		all.Go(func() {
			for n := range rounds {
				f(n)
			}
		})
	}
	repeat(func(int) {
		c.card.Transmit(append([]byte{0, 0xA4, 4, 0, 5}, aidPIV[:5]...))
		c.card.Transmit(append([]byte{0, 0x87, 0x11, 0x9A, 38, 0x7C, 36, 0x82, 0, 0x81, 32}, make([]byte, 32)...))
	})
	repeat(func(int) { c.card.Transmit(append([]byte{0, 0x20, 0, 0x80, 8}, padded(DefaultPIN)...)) })
	repeat(func(int) { c.card.Reset() })
	repeat(func(n int) { c.card.Touch.SetMode([]TouchMode{TouchAuto, TouchRefused}[n%2]) })
	repeat(func(int) { c.card.Show() })
	repeat(func(int) {
		if _, err := c.card.Generate(KeyPlan{Slot: "82", Algorithm: "ed25519"}); err != nil {
			t.Error(err)
		}
	})
	repeat(func(n int) {
		if err := c.card.SetFaults(Faults{Serial: uint32(n)}); err != nil {
			t.Error(err)
		}
	})
	all.Wait()
	touches := c.card.Touch.State().Touches
	if touches.Asked != touches.Given+touches.Refused+touches.Late+touches.Pulled {
		t.Errorf("touches: got %+v, whose parts are not the whole", touches)
	}
}
