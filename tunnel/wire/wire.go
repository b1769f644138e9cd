// Package wire is what clients and VPN servers say to each other outside WireGuard: registration of a key, release of it, and
// the notice that a server drains. docs/formats/registration.md describes it for authors of other clients.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// Paths.
const (
	PathRegister = "/v1/register" // POST Registration → Session, from outside
	PathRelease  = "/v1/release"  // POST Release, inside the tunnel
	PathNotice   = "/v1/notice"   // GET → Notice, inside the tunnel; held until there is something to say
)

// Limits.
const (
	MaxBody    = 4 << 10  // bytes of a request's or answer's body
	MaxLife    = 32 << 10 // bytes of the proof of a life
	MaxSession = MaxBody + 2*MaxLife
	NoticeHold = 50 * time.Second // longest that a notice request is held
	Keepalive  = 25 * time.Second // what a server asks of its clients
)

// Registration asks for a session with a fresh key.
type Registration struct {
	PublicKey string `json:"public_key"`
	Life      bool   `json:"life,omitempty"` // the answer shall have the proof of the server's life
}

// Session is what a server gives.
type Session struct {
	Address          netip.Prefix   `json:"address"` // the client's inner address, one host
	DNS              netip.Addr     `json:"dns"`
	ServerKey        string         `json:"server_key"`
	Endpoint         netip.AddrPort `json:"endpoint"`
	PresharedKey     string         `json:"preshared_key"`
	KeepaliveSeconds int            `json:"keepalive_seconds"`
	Notice           netip.AddrPort `json:"notice"`
	MTU              int            `json:"mtu"`
	Life             []byte         `json:"life,omitempty"` // that the fleet's public ledger has this life of the server; only if it was asked for, and there is one
}

// Release gives a session back.
type Release struct {
	PublicKey string `json:"public_key"`
}

// Notice says whether the server drains. After Deadline it is gone; RemainingSeconds is the same without a common clock.
type Notice struct {
	Draining         bool      `json:"draining"`
	Deadline         time.Time `json:"deadline,omitzero"`
	RemainingSeconds int       `json:"remaining_seconds,omitempty"`
}

// Reason is a refusal's code, the same in answers, tests and documents.
type Reason string

// Reasons of a refusal.
const (
	Malformed   Reason = "malformed"    // 400: not the JSON that was asked for
	TooLarge    Reason = "too_large"    // 413: over MaxBody
	BadKey      Reason = "bad_key"      // 400: not a public key, one of low order, or the server's own
	KeyInUse    Reason = "key_in_use"   // 409: registered already; make a fresh one for each session
	Busy        Reason = "busy"         // 429: too many requests from this source, or at once
	SourceFull  Reason = "source_full"  // 429: this source has as many sessions as one may have
	Draining    Reason = "draining"     // 503: the server takes no new session
	Full        Reason = "full"         // 503: no address left
	NotYours    Reason = "not_yours"    // 403: the key belongs to another inner address
	NotFound    Reason = "not_found"    // 404: no such path
	WrongMethod Reason = "wrong_method" // 405
	Failed      Reason = "failed"       // 500: the server could not
)

// Status is the HTTP status that goes with a reason.
func (r Reason) Status() int {
	switch r {
	case Malformed, BadKey:
		return http.StatusBadRequest
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case KeyInUse:
		return http.StatusConflict
	case Busy, SourceFull:
		return http.StatusTooManyRequests
	case Draining, Full:
		return http.StatusServiceUnavailable
	case NotYours:
		return http.StatusForbidden
	case NotFound:
		return http.StatusNotFound
	case WrongMethod:
		return http.StatusMethodNotAllowed
	}
	return http.StatusInternalServerError
}

// Refusal is a refusal's body. It is an error for the client.
type Refusal struct {
	Reason Reason `json:"reason"`
}

func (r *Refusal) Error() string { return "the server refused: " + string(r.Reason) }

// ErrTooLarge is Decode's error for a body over its limit.
var ErrTooLarge = errors.New("too large")

// Decode reads exactly one JSON value of at most limit bytes into v: no unknown field, no field twice, nothing after it.
func Decode(r io.Reader, limit int, v any) error {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if len(data) > limit {
		return fmt.Errorf("%w: over %d bytes", ErrTooLarge, limit)
	}
	if err := onceEach(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	return nil
}

// onceEach refuses an object with a field twice, in whatever case, and anything after the first value. What two readers could
// understand differently is not worth understanding.
func onceEach(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	type level struct {
		object, key bool
		seen        map[string]bool
	}
	var stack []level
	for {
		t, err := dec.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		top := len(stack) - 1
		if top >= 0 && stack[top].object && stack[top].key {
			if name, ok := t.(string); ok {
				folded := string(bytes.ToLower([]byte(name)))
				if stack[top].seen[folded] {
					return fmt.Errorf("field %q twice", name)
				}
				stack[top].seen[folded] = true
				stack[top].key = false
				continue
			}
		}
		switch t {
		case json.Delim('{'):
			stack = append(stack, level{object: true, key: true, seen: map[string]bool{}})
			continue
		case json.Delim('['):
			stack = append(stack, level{})
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
		}
		if len(stack) > 0 {
			stack[len(stack)-1].key = stack[len(stack)-1].object
			continue
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return errors.New("more after the value")
		}
		return nil
	}
}
