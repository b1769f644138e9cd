// Package enrolment is the file by which a person asks that a hardware key be enrolled: the key, and what is shown for it. It
// decides nothing: bastion/hardkey verifies, fleetctl key add and the approvers take the key into the policy.
package enrolment

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/canonical"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
)

// Kind of a request's first field.
const Kind = "mayfly-enrolment/1"

// MaxFile bounds a request, in bytes.
const MaxFile = 64 << 10

// Request is enrolment.json, canonical JSON (docs/formats/enrolment.md).
type Request struct {
	Kind   string `json:"kind"`
	Fleet  string `json:"fleet"`
	Name   string `json:"name"`   // of the person
	Public string `json:"public"` // "TYPE BASE64"
	hardkey.Shown
}

// Error is a request that cannot be used, and which of its fields is to blame; "" where none is.
type Error struct {
	Field string
	Err   error
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return e.Field + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Answer signs a challenge with a PIV key, for Shown.Signature.
func Answer(signer ssh.Signer, c hardkey.Challenge) (string, error) {
	armored, err := sshsig.Sign(signer, hardkey.Namespace, c.Signed())
	if err != nil {
		return "", err
	}
	sig, err := sshsig.Parse(armored)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sig.Blob()), nil
}

// New is a request that answers a challenge.
func New(c hardkey.Challenge, public string, shown hardkey.Shown) Request {
	return Request{Kind: Kind, Fleet: c.Fleet, Name: c.Name, Public: public, Shown: shown}
}

// Marshal writes a request as Parse reads it, and refuses one that Parse would.
func (r Request) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	data, err := canonical.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFile {
		return nil, &Error{Err: fmt.Errorf("longer than %d bytes", MaxFile)}
	}
	return data, nil
}

// Parse reads a request strictly: only what Marshal writes. It verifies nothing; every error is an Error.
func Parse(data []byte) (Request, error) {
	var r Request
	if err := canonical.Parse(data, MaxFile, &r); err != nil {
		e := &Error{Err: hint.New(err, "a request is the file that bastion-agent enroll wrote, unchanged")}
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			e.Field = strings.TrimPrefix(wrong.Field, "Shown.")
			e.Err = hint.New(fmt.Errorf("a JSON %s, not a %s", wrong.Value, wrong.Type), "a request is the file that bastion-agent enroll wrote, unchanged")
		}
		return Request{}, e
	}
	if err := r.check(); err != nil {
		return Request{}, err
	}
	return r, nil
}

func (r Request) check() error {
	const again = "write the request anew with bastion-agent enroll"
	if r.Kind != Kind {
		return &Error{Field: "kind", Err: hint.New(fmt.Errorf("not %q", Kind), again)}
	}
	if rejection := r.Shown.Check(r.Public); rejection != nil {
		text, _ := strings.CutPrefix(rejection.Text, rejection.Field+": ")
		return &Error{Field: rejection.Field, Err: hint.New(errors.New(text), "%s", rejection.Mend)}
	}
	c, err := hardkey.ParseChallenge(r.Challenge)
	switch {
	case err != nil:
		return &Error{Field: "challenge", Err: hint.New(err, again)}
	case r.Fleet != c.Fleet:
		return &Error{Field: "fleet", Err: hint.New(fmt.Errorf("%q, and the challenge is of fleet %q", r.Fleet, c.Fleet), again)}
	case r.Name != c.Name:
		return &Error{Field: "name", Err: hint.New(fmt.Errorf("%q, and the challenge is for %q", r.Name, c.Name), again)}
	}
	return nil
}
