// Package renewal is how a certificate of a host key stays young: the request by which a host asks for the next one, which the host key
// itself signs, and the times at which a holder asks.
//
// A request proves possession of the key, for one fleet, one host and one moment; whether that key belongs to that host is for
// the signer to know. What it yields is a public certificate of the same key, worth nothing to anybody without the key.
//
// It holds no key and opens no connection.
package renewal

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/sshsig"
)

// Specification constants (docs/formats/join.md).
const (
	// Path is where the controller's join port takes requests: POST Request → Answer.
	Path = "/v1/host"
	// Namespace is the SSHSIG namespace of a request's signature.
	Namespace = "mayfly-renew"
	// Kind is in what is signed.
	Kind = "mayfly-renew/1"
	// MaxSkew is how far the request's time may be from the signer's.
	MaxSkew = time.Minute
	// MaxRequest bounds a request's body, MaxAnswer an answer's, in bytes.
	MaxRequest = 8 << 10
	MaxAnswer  = 16 << 10
)

// maxName is the longest DNS label.
const maxName = 63

// Request asks for a fresh certificate of a host key.
type Request struct {
	Fleet     string    `json:"fleet"`
	Host      string    `json:"host"`      // name in the inventory
	Time      time.Time `json:"time"`      // UTC; each request of a host is later than the one before
	Signature []byte    `json:"signature"` // SSHSIG by the host key over the signed form
}

// Answer is a fresh certificate.
type Answer struct {
	Certificate string `json:"certificate"` // authorized_keys form
}

// signed is what the signature is over, in canonical JSON.
type signed struct {
	Kind  string    `json:"kind"`
	Fleet string    `json:"fleet"`
	Host  string    `json:"host"`
	Time  time.Time `json:"time"`
}

func (r *Request) message() ([]byte, error) {
	return canonical.Marshal(signed{Kind: Kind, Fleet: r.Fleet, Host: r.Host, Time: r.Time})
}

// Make signs a request with the host key.
func Make(key ssh.Signer, fleet, host string, now time.Time) (Request, error) {
	r := Request{Fleet: fleet, Host: host, Time: now.UTC()}
	message, err := r.message()
	if err != nil {
		return Request{}, fmt.Errorf("making a renewal request: %w", err)
	}
	if r.Signature, err = sshsig.Sign(key, Namespace, message); err != nil {
		return Request{}, fmt.Errorf("making a renewal request: %w", err)
	}
	return r, nil
}

// ErrTime says that a request is not of now.
var ErrTime = errors.New("the request's time is not now")

// Reason is the reason code of an error of Check: that of the clocks, or of the proof.
func Reason(err error) string {
	if errors.Is(err, ErrTime) {
		return "time_wrong"
	}
	return "proof_bad"
}

// Check returns the Ed25519 key that signed the request, if it is a request to this fleet at this time.
func (r *Request) Check(fleet string, now time.Time) (ssh.PublicKey, error) {
	switch {
	case r.Fleet != fleet:
		return nil, fmt.Errorf("request to fleet %.63q, not %q", r.Fleet, fleet)
	case r.Host == "" || len(r.Host) > maxName || strings.Trim(r.Host, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return nil, errors.New("host is no name")
	case r.Time.Location() != time.UTC:
		return nil, errors.New("time is not in UTC")
	case r.Time.Sub(now).Abs() > MaxSkew:
		return nil, fmt.Errorf("%w: %s, here it is %s", ErrTime, r.Time.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	blocks, err := sshsig.Split(r.Signature, 1)
	if err != nil || len(blocks) != 1 {
		return nil, errors.New("not one signature")
	}
	signature, err := sshsig.Parse(blocks[0])
	if err != nil {
		return nil, fmt.Errorf("reading the signature: %w", err)
	}
	if t := signature.Key().Type(); t != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("signed by a key of type %s, want %s", t, ssh.KeyAlgoED25519)
	}
	message, err := r.message()
	if err != nil {
		return nil, err
	}
	if err := signature.Verify(Namespace, message); err != nil {
		return nil, err
	}
	return signature.Key(), nil
}
