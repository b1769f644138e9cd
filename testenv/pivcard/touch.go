package pivcard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Implementation constants, as a YubiKey has them.
const (
	touchWindow = 15 * time.Second // how long a card waits for a touch
	touchCached = 15 * time.Second // how long one counts for a key of policy cached
)

// TouchMode is what the finger does when the card asks.
type TouchMode string

const (
	TouchManual  TouchMode = "manual"  // nothing, until Give or Refuse
	TouchAuto    TouchMode = "auto"    // it touches at once
	TouchRefused TouchMode = "refused" // it never will, and the card gives up at once
	TouchLate    TouchMode = "late"    // it touches after the window has closed
)

// Touch is the finger on the card, and the card's asking for it.
type Touch struct {
	mu      sync.Mutex
	mode    TouchMode
	window  time.Duration
	pending *pendingTouch
	asking  chan struct{} // closed when a touch is asked for, and then made anew
	last    time.Time     // of the touch that was given last, for policy cached
	counts  Touches
}

// pendingTouch is one wait; decided and given are guarded by Touch.mu.
type pendingTouch struct {
	decided, given bool
	done           chan struct{}
}

// Touches counts what was asked and what came of it: Asked is the sum of the four after it and of a wait that still goes on.
type Touches struct {
	Asked   int `json:"asked"`
	Given   int `json:"given"`
	Refused int `json:"refused"`
	Late    int `json:"late"`   // the window closed first
	Pulled  int `json:"pulled"` // the card was pulled first
	Cached  int `json:"cached"` // not asked, because of a touch shortly before
}

// TouchState is what is to be seen of a Touch.
type TouchState struct {
	Mode    TouchMode `json:"mode"`
	Window  string    `json:"window"`
	Waiting bool      `json:"waiting"`
	Touches
}

// ErrNotAsked is what touching a card gives that does not ask for it.
var ErrNotAsked = errors.New("the card does not ask for a touch")

// NewTouch is a finger in manual mode.
func NewTouch() *Touch {
	return &Touch{mode: TouchManual, window: touchWindow, asking: make(chan struct{})}
}

// SetMode says what happens from the next request on.
func (t *Touch) SetMode(m TouchMode) error {
	switch m {
	case TouchManual, TouchAuto, TouchRefused, TouchLate:
	default:
		return fmt.Errorf("touch mode %q: want %s, %s, %s or %s", m, TouchManual, TouchAuto, TouchRefused, TouchLate)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mode = m
	return nil
}

// SetWindow says how long the card waits from the next request on; at most as long as a real one.
func (t *Touch) SetWindow(d time.Duration) error {
	if d <= 0 || d > touchWindow {
		return fmt.Errorf("touch window %s: want more than nothing and at most %s", d, touchWindow)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.window = d
	return nil
}

// State is a snapshot.
func (t *Touch) State() TouchState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TouchState{Mode: t.mode, Window: t.window.String(), Waiting: t.waiting(), Touches: t.counts}
}

func (t *Touch) waiting() bool { return t.pending != nil && !t.pending.decided }

// Give touches the card, if it asks.
func (t *Touch) Give() error { return t.decide(true) }

// Refuse ends the card's wait as if the window had closed.
func (t *Touch) Refuse() error { return t.decide(false) }

func (t *Touch) decide(given bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.waiting() {
		return ErrNotAsked
	}
	t.pending.decided, t.pending.given = true, given
	close(t.pending.done)
	return nil
}

// Asked waits until the card asks for a touch.
func (t *Touch) Asked(ctx context.Context) error {
	for {
		t.mu.Lock()
		waiting, asking := t.waiting(), t.asking
		t.mu.Unlock()
		if waiting {
			return nil
		}
		select {
		case <-asking:
		case <-ctx.Done():
			return fmt.Errorf("waiting until the card asks for a touch: %w", ctx.Err())
		}
	}
}

// forget is a power cycle: a touch before it counts for nothing.
func (t *Touch) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = time.Time{}
}

// ask is the card's request. ctx ends when the card is pulled.
func (t *Touch) ask(ctx context.Context, cached bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if cached && !t.last.IsZero() && time.Since(t.last) < touchCached {
		t.counts.Cached++
		return true
	}
	t.counts.Asked++
	switch t.mode {
	case TouchAuto:
		return t.given()
	case TouchRefused:
		t.counts.Refused++
		return false
	}
	p := &pendingTouch{done: make(chan struct{})}
	if t.mode == TouchManual {
		t.pending = p
		close(t.asking)
		t.asking = make(chan struct{})
	}
	timer := time.NewTimer(t.window)
	defer timer.Stop()
	t.mu.Unlock()
	select {
	case <-p.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	t.pending = nil
	switch { // whatever ended the wait: what was decided by now counts, and then that the card is out of the reader
	case p.decided && p.given:
		return t.given()
	case p.decided:
		t.counts.Refused++
	case ctx.Err() != nil:
		t.counts.Pulled++
	default:
		t.counts.Late++
	}
	return false
}

func (t *Touch) given() bool {
	t.counts.Given++
	t.last = time.Now()
	return true
}
