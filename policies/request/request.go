package request

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/policies"
	"mayfly/policies/statement"
)

// Specification constants.
const (
	Kind      = "mayfly-request/1"
	Namespace = "mayfly-request"

	MaxSize    = 16 << 10 // bytes of one request
	MaxLife    = 8 * time.Hour
	nonceBytes = 16
	maxText    = 1024
	maxName    = 255
)

// Names of arguments.
const (
	ArgFor         = "for"         // drain: how long the engineer has, at most
	ArgHostKey     = "host_key"    // certify: authorized_keys form
	ArgOverlap     = "overlap"     // ca-override: how long the next CA was public before it signs
	ArgCompromised = "compromised" // ca-override: "true"
)

// NewCA is the subject of a ca-rotate that makes the next CA; one that lets it sign names its fingerprint.
const NewCA = "new"

// Order is what is to be done. Whoever acts compares the one it was asked for with the one that people signed.
type Order struct {
	Action    string            `json:"action"`              // as in the policy's [[operator]]
	Subject   string            `json:"subject"`             // to whom: a server, a bastion, a CA
	Arguments map[string]string `json:"arguments,omitempty"` // how
}

// Request is an order of people: canonical JSON, signed by each of them.
type Request struct {
	Kind  string `json:"kind"`
	Fleet string `json:"fleet"`
	Order
	Reason  string    `json:"reason"`
	Nonce   string    `json:"nonce"` // 32 hex digits; a request counts once
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
}

// Drain is the order to take a server out for an engineer.
func Drain(server string, length time.Duration) Order {
	return Order{policies.ActionDrain, server, map[string]string{ArgFor: length.String()}}
}

// Certify is the order to certify a bastion's host key for the first time.
func Certify(bastion, hostKey string) Order {
	return Order{policies.ActionCertify, bastion, map[string]string{ArgHostKey: hostKey}}
}

// CARotate is the order to make the next CA (NewCA) or to let it sign.
func CARotate(ca string) Order { return Order{Action: policies.ActionCARotate, Subject: ca} }

// CARetire is the order to believe a CA no more.
func CARetire(ca string) Order { return Order{Action: policies.ActionCARetire, Subject: ca} }

// CAHurry is the order to let the next CA sign after less than the time that engineers need to have heard of it.
func CAHurry(ca string, overlap time.Duration) Order {
	return Order{policies.ActionCAOverride, ca, map[string]string{ArgOverlap: overlap.String()}}
}

// CACompromised is the order to believe a CA no more at once.
func CACompromised(ca string) Order {
	return Order{policies.ActionCAOverride, ca, map[string]string{ArgCompromised: "true"}}
}

// Same reports whether two orders are for the same.
func (o Order) Same(other Order) bool {
	return o.Action == other.Action && o.Subject == other.Subject && maps.Equal(o.Arguments, other.Arguments)
}

// String is the order in one line.
func (o Order) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", o.Action, o.Subject)
	for _, name := range slices.Sorted(maps.Keys(o.Arguments)) {
		fmt.Fprintf(&b, ", %s %s", name, o.Arguments[name])
	}
	return b.String()
}

// New makes a request with a nonce of its own.
func New(fleet string, o Order, reason string, now time.Time, life time.Duration) Request {
	var nonce [nonceBytes]byte
	rand.Read(nonce[:]) // never fails
	made := now.UTC().Truncate(time.Second)
	return Request{Kind: Kind, Fleet: fleet, Order: o, Reason: reason, Nonce: hex.EncodeToString(nonce[:]), Made: made, Expires: made.Add(life)}
}

// Marshal returns the bytes that are signed.
func (r Request) Marshal() ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	return canonical.Marshal(r)
}

// Parse reads a request in canonical form. The error names the field.
func Parse(data []byte) (Request, error) {
	var r Request
	if err := canonical.Parse(data, MaxSize, &r); err != nil {
		return Request{}, err
	}
	if err := r.Check(); err != nil {
		return Request{}, err
	}
	return r, nil
}

var (
	nonceForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
	hashForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nameForm  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	caForm    = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)
)

// Check reports what is wrong with the request, whatever the time.
func (r Request) Check() error {
	if r.Kind != Kind {
		return fmt.Errorf("kind is %q, not %q", r.Kind, Kind)
	}
	if r.Fleet == "" || len(r.Fleet) > maxName {
		return fmt.Errorf("fleet is %q", r.Fleet)
	}
	if err := errors.Join(r.Order.check(), statement.CheckReason(r.Reason)); err != nil {
		return err
	}
	if !nonceForm.MatchString(r.Nonce) {
		return fmt.Errorf("nonce is %q, not 32 hex digits", r.Nonce)
	}
	for _, t := range []struct {
		name string
		time time.Time
	}{{"made", r.Made}, {"expires", r.Expires}} {
		if t.time.IsZero() || t.time.Location() != time.UTC || !t.time.Equal(t.time.Truncate(time.Second)) {
			return fmt.Errorf("%s is no time in UTC and whole seconds", t.name)
		}
	}
	if life := r.Expires.Sub(r.Made); life <= 0 || life > MaxLife {
		return fmt.Errorf("expires: in force for %s, at most %s", life, MaxLife)
	}
	return nil
}

// check asks that the order is one that somebody could carry out, with the arguments of its action and no others.
func (o Order) check() error {
	form, arguments := nameForm, [][]string{{}}
	switch o.Action {
	case policies.ActionDrain:
		arguments = [][]string{{ArgFor}}
	case policies.ActionCertify:
		arguments = [][]string{{ArgHostKey}}
	case policies.ActionCARotate, policies.ActionCARetire:
		form = caForm
	case policies.ActionCAOverride:
		form, arguments = caForm, [][]string{{ArgOverlap}, {ArgCompromised}}
	default:
		var ok bool
		if form, arguments, ok = o.controllerForm(); !ok {
			return fmt.Errorf("action is %q", o.Action)
		}
	}
	if !form.MatchString(o.Subject) && !(o.Action == policies.ActionCARotate && o.Subject == NewCA) {
		return fmt.Errorf("subject is %q", o.Subject)
	}
	given := slices.Sorted(maps.Keys(o.Arguments))
	if !slices.ContainsFunc(arguments, func(want []string) bool { return slices.Equal(want, given) }) {
		return fmt.Errorf("arguments of %s are %q", o.Action, given)
	}
	for _, name := range given {
		if value := o.Arguments[name]; !goodArgument(name, value) {
			return fmt.Errorf("arguments: %s is %q", name, value)
		}
	}
	return nil
}

func goodArgument(name, value string) bool {
	switch name {
	case ArgCompromised:
		return value == "true"
	case ArgServers:
		return goodServers(value)
	case ArgRelease, ArgPolicy, ArgRun:
		return goodNumber(value)
	case ArgDigest, ArgBackup, ArgKey:
		return hashForm.MatchString(value)
	case ArgHostKey:
		key, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(value))
		return len(value) <= maxText && err == nil && comment == "" && len(options) == 0 && len(rest) == 0 && strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) == value
	}
	d, err := time.ParseDuration(value)
	return err == nil && d.String() == value && d >= 0 && d%time.Second == 0 && (name != ArgFor || d > 0)
}
