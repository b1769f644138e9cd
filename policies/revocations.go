package policies

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"mayfly/policies/krl"
)

// Revocations is an OpenSSH key revocation list, written as BASE64 in TOML and JSON. It is read once, when it is parsed. The zero
// value revokes nothing.
type Revocations struct {
	text string
	list *krl.List
}

// NewRevocations reads a list as ssh-keygen -k makes it.
func NewRevocations(data []byte) (Revocations, error) {
	var r Revocations
	err := r.UnmarshalText([]byte(base64.StdEncoding.EncodeToString(data)))
	return r, err
}

// Bytes is the list as ssh-keygen made it, for an sshd; nil without one.
func (r Revocations) Bytes() []byte {
	if r.text == "" {
		return nil
	}
	data, err := base64.StdEncoding.Strict().DecodeString(r.text)
	if err != nil {
		panic("policies: internal error: a revocation list that was read is not base64: " + err.Error())
	}
	return data
}

// List is what the list says; nil without one.
func (r Revocations) List() *krl.List { return r.list }

// MarshalText writes the list as it was read.
func (r Revocations) MarshalText() ([]byte, error) { return []byte(r.text), nil }

// UnmarshalText reads BASE64, in the one form that encoding it again gives; nothing is no list.
func (r *Revocations) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Revocations{}
		return nil
	}
	if len(text) > base64.StdEncoding.EncodedLen(krl.MaxSize) {
		return fmt.Errorf("a revocation list is at most %d bytes", krl.MaxSize)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || base64.StdEncoding.EncodeToString(data) != string(text) {
		return errors.New("a revocation list is the BASE64 of a file that ssh-keygen -k made, in one line")
	}
	list, err := krl.Parse(data)
	if err != nil {
		return err
	}
	*r = Revocations{text: string(text), list: list}
	return nil
}

// key says how a key, "TYPE BASE64", is revoked. What cannot be read is.
func (r Revocations) key(public string) string {
	if r.list == nil {
		return ""
	}
	blob, ok := keyBlob(public)
	if !ok {
		return "malformed key"
	}
	return r.list.Key(blob)
}

// certificate says how a certificate for a key is revoked.
func (r Revocations) certificate(public string, c *Certificate) string {
	if r.list == nil {
		return ""
	}
	key, ok := keyBlob(public)
	ca, okCA := keyBlob(c.Authority)
	if !ok || !okCA {
		return "malformed key"
	}
	return r.list.Certificate(key, ca, c.Serial, c.KeyID)
}

// keyBlob is the wire form of "TYPE BASE64".
func keyBlob(public string) ([]byte, bool) {
	_, text, ok := strings.Cut(public, " ")
	if !ok {
		return nil, false
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	return blob, err == nil
}
