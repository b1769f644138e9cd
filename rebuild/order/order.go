// Package order is how the fleet has a server restart that has no BMC: a file that the signer signs with a ticket key, and that the server
// verifies by itself before it ends its life in order and starts anew. It can be used for one life of one server, once, for a short time.
package order

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"time"

	"mayfly/internal/canonical"
	"mayfly/policies/trust"
)

// Specification constants.
const (
	// Kind of this format's version.
	Kind = "mayfly-order/1"
	// Namespace of an order's SSHSIG signature.
	Namespace = "mayfly-order"
	// MaxBytes bounds the file, MaxSignatureBytes its signature.
	MaxBytes          = 4 << 10
	MaxSignatureBytes = 8 << 10
	// MaxLife is how long an order may be in force.
	MaxLife = 15 * time.Minute

	// Restart ends the life in order, and starts the machine anew.
	Restart = "restart"

	nonceBytes = 16
	maxSkew    = time.Minute // how far clocks may differ
	maxName    = 63
)

// Reason codes of a Refusal.
const (
	Malformed  = "order_malformed"
	Unsigned   = "order_unsigned"
	OtherFleet = "order_other_fleet"
	OtherLife  = "order_other_life"
	Early      = "order_early"
	Expired    = "order_expired"
	Used       = "order_used" // said by the server: it has this order already
)

// Reasons are all of them.
var Reasons = []string{Malformed, Unsigned, OtherFleet, OtherLife, Early, Expired, Used}

// Refusal is why a server does nothing.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program end with the exit code of a refusal.
func (r *Refusal) Refused() bool { return true }

// Refuse makes a refusal.
func Refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Order is the file's content, canonical JSON.
type Order struct {
	Kind     string    `json:"kind"` // "mayfly-order/1"
	Fleet    string    `json:"fleet"`
	Server   string    `json:"server"`
	Epoch    uint64    `json:"epoch"` // of the life that is to end
	Do       string    `json:"do"`    // Restart
	Nonce    string    `json:"nonce"` // 32 hex digits; an order counts once
	Made     time.Time `json:"made"`
	NotAfter time.Time `json:"not_after"`
}

var (
	name  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	nonce = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// New makes an order with a nonce of its own.
func New(fleet, server string, epoch uint64, now time.Time, life time.Duration) Order {
	var n [nonceBytes]byte
	rand.Read(n[:]) // never fails: crypto/rand ends the program instead
	made := now.UTC().Truncate(time.Second)
	return Order{Kind: Kind, Fleet: fleet, Server: server, Epoch: epoch, Do: Restart, Nonce: hex.EncodeToString(n[:]), Made: made, NotAfter: made.Add(life)}
}

// Check says whether every field has its form.
func (o *Order) Check() error {
	switch {
	case o.Kind != Kind:
		return fmt.Errorf("kind is %.40q, not %q", o.Kind, Kind)
	case o.Fleet == "" || len(o.Fleet) > maxName:
		return fmt.Errorf("fleet %.80q is no name", o.Fleet)
	case !name.MatchString(o.Server):
		return fmt.Errorf("server %.80q is no name", o.Server)
	case o.Epoch == 0:
		return errors.New("epoch is 0")
	case o.Do != Restart:
		return fmt.Errorf("do is %.40q, not %q", o.Do, Restart)
	case !nonce.MatchString(o.Nonce):
		return errors.New("nonce is not 32 hex digits")
	case !wholeUTC(o.Made) || !wholeUTC(o.NotAfter):
		return errors.New("made and not_after are not whole seconds in UTC")
	case !o.Made.Before(o.NotAfter) || o.NotAfter.Sub(o.Made) > MaxLife:
		return fmt.Errorf("not_after is not later than made, by at most %s", MaxLife)
	}
	return nil
}

func wholeUTC(t time.Time) bool {
	return !t.IsZero() && t.Location() == time.UTC && t.Nanosecond() == 0
}

// Marshal returns the bytes that are signed.
func (o *Order) Marshal() ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("writing an order: %w", err)
	}
	return canonical.Marshal(o)
}

// Parse reads an order strictly. It says nothing about signatures.
func Parse(data []byte) (*Order, error) {
	o := new(Order)
	if err := canonical.Parse(data, MaxBytes, o); err != nil {
		return nil, fmt.Errorf("reading an order: %w", err)
	}
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("reading an order: %w", err)
	}
	return o, nil
}

// Open returns the order to this life that a ticket key has signed and that is in force now. Its error is a *Refusal. That an order counts
// once is kept by the server.
func Open(t *trust.Trust, data, sig []byte, server string, epoch uint64, now time.Time) (*Order, error) {
	if len(data) > MaxBytes || len(sig) > MaxSignatureBytes {
		return nil, Refuse(Malformed, "order of %d bytes with a signature of %d", len(data), len(sig))
	}
	if err := trust.VerifyAny(t.TicketKeys, Namespace, data, sig); err != nil {
		return nil, &Refusal{Unsigned, err}
	}
	o, err := Parse(data)
	switch {
	case err != nil:
		return nil, &Refusal{Malformed, err}
	case o.Fleet != t.Fleet:
		return nil, Refuse(OtherFleet, "it is for fleet %q, not %q", o.Fleet, t.Fleet)
	case o.Server != server || o.Epoch != epoch:
		return nil, Refuse(OtherLife, "it is for life %d of %q, not life %d of %q", o.Epoch, o.Server, epoch, server)
	case o.Made.Sub(now) > maxSkew:
		return nil, Refuse(Early, "it was made at %s", o.Made.Format(time.RFC3339))
	case !now.Before(o.NotAfter):
		return nil, Refuse(Expired, "it expired at %s", o.NotAfter.Format(time.RFC3339))
	}
	return o, nil
}
