package hardkey

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Challenge is the line that a key signs when it is enrolled: by which fleet it was made, for whom, and when.
type Challenge struct {
	Fleet string
	Name  string
	Nonce string // 32 hex digits
	Made  time.Time
}

// NonceBytes is how many random bytes a challenge has.
const NonceBytes = 16

// MaxChallenge bounds the line, in bytes.
const MaxChallenge = 256

const challengeForm = "mayfly-challenge/1"

var (
	challengeWord  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`) // a fleet's or a person's name
	challengeNonce = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// IsName reports whether a fleet or a person can be called so: a challenge, the policy and trust.json take the same names.
func IsName(name string) bool { return challengeWord.MatchString(name) }

// NameRule says it to people.
const NameRule = "a name begins with a letter, and has at most 63 letters in lower case, digits and hyphens"

// NewChallenge makes one from random bytes.
func NewChallenge(fleet, name string, nonce [NonceBytes]byte, now time.Time) Challenge {
	return Challenge{Fleet: fleet, Name: name, Nonce: hex.EncodeToString(nonce[:]), Made: now.UTC().Truncate(time.Second)}
}

// String is the line without its newline.
func (c Challenge) String() string {
	return fmt.Sprintf("%s %s %s %s %s", challengeForm, c.Fleet, c.Name, c.Nonce, c.Made.UTC().Format(time.RFC3339))
}

// Signed is what is signed: the line with its newline, as a file of one line has it.
func (c Challenge) Signed() []byte { return []byte(c.String() + "\n") }

// ParseChallenge reads a line strictly: what it returns is written as the same line.
func ParseChallenge(line string) (Challenge, error) {
	if len(line) > MaxChallenge {
		return Challenge{}, fmt.Errorf("longer than %d bytes", MaxChallenge)
	}
	fields := strings.Split(line, " ")
	if len(fields) != 5 || fields[0] != challengeForm {
		return Challenge{}, fmt.Errorf("not of the form %q", challengeForm+" FLEET NAME NONCE TIME")
	}
	c := Challenge{Fleet: fields[1], Name: fields[2], Nonce: fields[3]}
	switch {
	case !challengeWord.MatchString(c.Fleet):
		return Challenge{}, fmt.Errorf("fleet %q is not a name", c.Fleet)
	case !challengeWord.MatchString(c.Name):
		return Challenge{}, fmt.Errorf("name %q is not a name", c.Name)
	case !challengeNonce.MatchString(c.Nonce):
		return Challenge{}, errors.New("the nonce is not 32 hex digits")
	}
	made, err := time.Parse(time.RFC3339, fields[4])
	if err != nil {
		return Challenge{}, fmt.Errorf("time %q is not of the form 2006-01-02T15:04:05Z", fields[4])
	}
	if c.Made = made.UTC(); c.String() != line {
		return Challenge{}, fmt.Errorf("time %q is not of the form 2006-01-02T15:04:05Z", fields[4])
	}
	return c, nil
}
