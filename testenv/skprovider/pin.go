package skprovider

import (
	"crypto/subtle"
	"fmt"
)

// PIN tries (CTAP 2.1, section 6.5.5.7.2).
const (
	pinTries = 8 // then it is blocked for good
	pinInRow = 3 // then it is blocked until the key is plugged in anew
)

// Code is what sk_api functions return.
type Code int

// Specification constants (sk-api.h).
const (
	General          Code = -1
	Unsupported      Code = -2
	PINRequired      Code = -3
	DeviceNotFound   Code = -4
	CredentialExists Code = -5
)

// Error is a refusal by the key.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }

func refuse(code Code, text string, args ...any) error {
	return &Error{Code: code, Text: fmt.Sprintf(text, args...)}
}

// verify checks a PIN. The try counts before it is looked at.
func (st *state) verify(pin string) error {
	switch {
	case st.Settings.PIN == "":
		return refuse(General, "no PIN is set")
	case st.Tries <= 0:
		return refuse(General, "the PIN is blocked for good")
	case st.InRow >= pinInRow:
		return refuse(General, "the PIN is blocked until the key is plugged in anew")
	}
	st.Tries--
	st.InRow++
	if subtle.ConstantTimeCompare([]byte(st.Settings.PIN), []byte(pin)) != 1 {
		switch {
		case st.Tries <= 0:
			return refuse(General, "wrong PIN: it is blocked for good now")
		case st.InRow >= pinInRow:
			return refuse(General, "wrong PIN: it is blocked until the key is plugged in anew")
		}
		return refuse(PINRequired, "wrong PIN, %d tries left", st.Tries)
	}
	st.Tries, st.InRow = pinTries, 0
	return nil
}
