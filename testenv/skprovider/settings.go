package skprovider

import (
	"fmt"
	"slices"
	"time"
)

// Touch is what happens when the key asks for a touch.
type Touch string

const (
	TouchRefused Touch = ""      // nobody touches; the key gives up at once instead of after its half minute
	TouchGiven   Touch = "given" // a finger rests on it
	TouchAsked   Touch = "asked" // a Finger decides; one that answers after Patience is late
)

// Flaw is something that an honest key does not do.
type Flaw string

const (
	FlawNoCredProtect  Flaw = "no-credprotect"  // leaves the protection out that verify-required asks for
	FlawWrongRP        Flaw = "wrong-rp"        // attests for another relying party than it was asked for
	FlawNoTouchFlag    Flaw = "no-touch-flag"   // asks for no touch, and its flags say so
	FlawNoVerifyFlag   Flaw = "no-verify-flag"  // leaves out the flag that a PIN was given
	FlawOtherModel     Flaw = "other-model"     // its authenticator data names another model than its certificate
	FlawOtherKey       Flaw = "other-key"       // attests another key than it hands out
	FlawOtherChallenge Flaw = "other-challenge" // signs another challenge than it was given
	FlawNoCertificate  Flaw = "no-certificate"  // attests with the new key itself, as some keys do
	FlawSynced         Flaw = "synced"          // says that its keys are copied elsewhere
	FlawCutShort       Flaw = "cut-short"       // half of its authenticator data
	FlawCounterStands  Flaw = "counter-stands"  // its counter does not rise
)

// Flaws are all of them.
var Flaws = []Flaw{FlawNoCredProtect, FlawWrongRP, FlawNoTouchFlag, FlawNoVerifyFlag, FlawOtherModel, FlawOtherKey, FlawOtherChallenge,
	FlawNoCertificate, FlawSynced, FlawCutShort, FlawCounterStands}

// Settings is how a key behaves. The zero value has no PIN and is touched by nobody.
type Settings struct {
	Touch    Touch         `json:"touch"`
	Patience time.Duration `json:"patience,omitempty"` // how long it waits for a Finger; 0: DefaultPatience
	PIN      string        `json:"pin,omitempty"`      // none: it has no PIN and makes no key that requires one
	Flaws    []Flaw        `json:"flaws,omitempty"`
}

// Implementation constants.
const (
	DefaultPatience = time.Minute // a real key gives up after half of it
	minPIN          = 4           // CTAP 2.1, section 6.5.1
	maxPIN          = 63
)

func (s Settings) check() error {
	if !slices.Contains([]Touch{TouchRefused, TouchGiven, TouchAsked}, s.Touch) {
		return fmt.Errorf("touch %q is none of given, asked and empty", s.Touch)
	}
	if s.Patience < 0 {
		return fmt.Errorf("patience %v is negative", s.Patience)
	}
	if n := len(s.PIN); n != 0 && (n < minPIN || n > maxPIN) {
		return fmt.Errorf("a PIN has %d to %d bytes, got %d", minPIN, maxPIN, n)
	}
	for _, f := range s.Flaws {
		if !slices.Contains(Flaws, f) {
			return fmt.Errorf("no flaw is called %q", f)
		}
	}
	return nil
}

func (s Settings) has(f Flaw) bool { return slices.Contains(s.Flaws, f) }
