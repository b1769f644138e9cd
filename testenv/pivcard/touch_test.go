package pivcard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// touchy is a card with keys of touch policy always in 82 and cached in 83 that need no PIN.
func touchy(t *testing.T) client {
	c := newCard(t, fw574)
	c.administrator()
	c.generate(0x11, 0x82, 1, 2)
	c.generate(0x11, 0x83, 1, 3)
	return c
}

// Every touch that is asked for is counted under what came of it.
func TestTouchModes(t *testing.T) {
	newCard(t, fw574) // makes the issuer, outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		c := touchy(t)
		use := func(slot byte, want Status, act func()) {
			t.Helper()
			go func() {
				if c.card.Touch.Asked(t.Context()) == nil && act != nil {
					act()
				}
			}()
			if _, sw := c.sign(0x11, slot, make([]byte, 32)); sw != want {
				t.Errorf("got %04x, want %04x", uint16(sw), uint16(want))
			}
		}
		finger := c.card.Touch
		give := func() {
			if got := finger.State(); !got.Waiting || c.card.Show().Touch.Asked == 0 { // the card can be looked at meanwhile
				t.Errorf("got %+v, want a card that waits", got)
			}
			if err := finger.Give(); err != nil {
				t.Error(err)
			}
			if err := finger.Give(); !errors.Is(err, ErrNotAsked) {
				t.Errorf("a second touch: got %v", err)
			}
		}
		use(0x82, statusOK, give)
		began := time.Now()
		use(0x82, statusSecurity, func() {
			if err := finger.Refuse(); err != nil {
				t.Error(err)
			}
		})
		if took := time.Since(began); took != 0 {
			t.Errorf("a refusal took %s", took)
		}
		use(0x82, statusSecurity, func() {}) // nobody comes
		if took := time.Since(began); took != touchWindow {
			t.Errorf("the card waited %s, want %s", took, touchWindow)
		}
		if err := finger.SetWindow(time.Second); err != nil {
			t.Fatal(err)
		}
		if err := finger.SetMode(TouchLate); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if _, sw := c.sign(0x11, 0x82, make([]byte, 32)); sw != statusSecurity || time.Since(began) != time.Second {
			t.Errorf("late: got %04x after %s", uint16(sw), time.Since(began))
		}
		finger.SetMode(TouchAuto)
		if _, sw := c.sign(0x11, 0x82, make([]byte, 32)); sw != statusOK {
			t.Errorf("auto: got %04x", uint16(sw))
		}
		finger.SetMode(TouchRefused)
		if _, sw := c.sign(0x11, 0x82, make([]byte, 32)); sw != statusSecurity {
			t.Errorf("refused: got %04x", uint16(sw))
		}
		if got, want := finger.State().Touches, (Touches{Asked: 6, Given: 2, Refused: 2, Late: 2}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := finger.Give(); !errors.Is(err, ErrNotAsked) {
			t.Errorf("a touch that nobody asked for: got %v", err)
		}
		if got := c.card.Show().Signatures; got != 2 {
			t.Errorf("got %d signatures, want 2", got)
		}
		synctest.Wait()
	})
}

// A touch counts for fifteen seconds for a key of policy cached, and never for one of policy always. A power cycle ends it.
func TestTouchCached(t *testing.T) {
	newCard(t, fw574)
	synctest.Test(t, func(t *testing.T) {
		c := touchy(t)
		c.card.Touch.SetMode(TouchAuto)
		asked := func(slot byte, want int) {
			t.Helper()
			if _, sw := c.sign(0x11, slot, make([]byte, 32)); sw != statusOK {
				t.Errorf("got %04x", uint16(sw))
			}
			if got := c.card.Touch.State().Asked; got != want {
				t.Errorf("touches asked: got %d, want %d", got, want)
			}
		}
		asked(0x83, 1)
		asked(0x83, 1)
		time.Sleep(touchCached - time.Nanosecond)
		asked(0x83, 1)
		time.Sleep(time.Nanosecond)
		asked(0x83, 2)
		asked(0x82, 3)
		asked(0x82, 4)
		asked(0x83, 4)
		c.card.Reset()
		c.must(0xA4, 4, 0, aidPIV)
		asked(0x83, 5)
		if got := c.card.Touch.State().Cached; got != 3 {
			t.Errorf("cached: got %d, want 3", got)
		}
	})
}

func TestTouchPulled(t *testing.T) {
	newCard(t, fw574)
	synctest.Test(t, func(t *testing.T) {
		c := touchy(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if err := c.card.Touch.Asked(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}()
		apdu := append([]byte{0, 0x87, 0x11, 0x82, 38, 0x7C, 36, 0x82, 0, 0x81, 32}, make([]byte, 32)...)
		if out := c.card.TransmitContext(ctx, apdu); len(out) != 2 || out[0] != 0x69 {
			t.Errorf("got % x", out)
		}
		if got, want := c.card.Touch.State().Touches, (Touches{Asked: 1, Pulled: 1}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := c.card.Touch.Asked(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTouchSettings(t *testing.T) {
	finger := NewTouch()
	for _, m := range []TouchMode{"", "always", "Auto"} {
		if err := finger.SetMode(m); err == nil {
			t.Errorf("mode %q: got no error", m)
		}
	}
	for _, d := range []time.Duration{0, -1, touchWindow + 1} {
		if err := finger.SetWindow(d); err == nil {
			t.Errorf("window %s: got no error", d)
		}
	}
	if got := finger.State(); got.Mode != TouchManual || got.Window != touchWindow.String() {
		t.Errorf("got %+v, want it as it was", got)
	}
}
