package statement

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mayfly/internal/canonical"
	"mayfly/policies"
)

// Specification constants.
const (
	KindApproval   = "mayfly-approval/1"
	KindBreakGlass = "mayfly-break-glass/1"
	KindDrained    = "mayfly-drained/1"

	NamespaceApproval   = "mayfly-approval"
	NamespaceBreakGlass = "mayfly-break-glass"
	NamespaceDrained    = "mayfly-drained"

	// The longest that a statement is in force, from when it was made.
	MaxApproval   = 8 * time.Hour
	MaxBreakGlass = time.Hour
	MaxDrained    = time.Hour + policies.DrainedMargin

	MaxSize    = 64 << 10 // bytes of one statement
	maxServers = 100
	maxPorts   = 64
	MaxReason  = 500 // bytes
	maxName    = 255
	idBytes    = 8
)

// Approval is an engineer's word that another may use grants that ask for it.
type Approval struct {
	Kind      string    `json:"kind"`
	Fleet     string    `json:"fleet"`
	ID        string    `json:"id"`       // 16 hex digits
	Engineer  string    `json:"engineer"` // who may go; never who signs
	Servers   []string  `json:"servers"`  // as in a grant: a name, "region:NAME" or "*"
	Ports     []uint16  `json:"ports"`
	Reason    string    `json:"reason"`
	Made      time.Time `json:"made"`
	NotBefore time.Time `json:"not_before"`
	Expires   time.Time `json:"expires"`
}

// BreakGlass opens a break-glass identity.
type BreakGlass struct {
	Kind    string    `json:"kind"`
	Fleet   string    `json:"fleet"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Reason  string    `json:"reason"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
}

// Drained says that this life of a server takes no traffic any more and that no later one begins before the statement's end.
type Drained struct {
	Kind    string    `json:"kind"`
	Fleet   string    `json:"fleet"`
	Server  string    `json:"server"`
	Epoch   uint64    `json:"epoch"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
}

// Statement is an Approval, a BreakGlass or a Drained.
type Statement interface{ Check() error }

var (
	_ Statement = Approval{}
	_ Statement = BreakGlass{}
	_ Statement = Drained{}
)

var (
	idForm     = regexp.MustCompile(`^[0-9a-f]{16}$`)
	serverForm = regexp.MustCompile(`^(\*|(region:)?[a-z0-9][a-z0-9-]{0,62})$`)
)

// NewID returns a fresh id.
func NewID() (string, error) {
	var b [idBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// Marshal returns the statement as it is signed. It refuses what Parse would refuse.
func Marshal(s Statement) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("writing a statement: %w", err)
	}
	data, err := canonical.Marshal(s)
	if err == nil && len(data) > MaxSize {
		err = fmt.Errorf("longer than %d bytes", MaxSize)
	}
	if err != nil {
		return nil, fmt.Errorf("writing a statement: %w", err)
	}
	return data, nil
}

// Parse reads a statement of any kind strictly. It says nothing of signatures: see Open.
func Parse(data []byte) (Statement, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("longer than %d bytes", MaxSize)
	}
	var head struct{ Kind string }
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	switch head.Kind {
	case KindApproval:
		return parse[Approval](data)
	case KindBreakGlass:
		return parse[BreakGlass](data)
	case KindDrained:
		return parse[Drained](data)
	}
	return nil, fmt.Errorf("unknown kind %q", head.Kind)
}

func parse[S Statement](data []byte) (Statement, error) {
	var s S
	if err := canonical.Parse(data, MaxSize, &s); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s, nil
}

// Check reports what is wrong with the statement, whatever the time.
func (a Approval) Check() error {
	if err := errors.Join(checkHead(a.Kind, KindApproval, a.Fleet), checkID(a.ID), CheckReason(a.Reason)); err != nil {
		return err
	}
	if !policies.AccountName(a.Engineer) {
		return fmt.Errorf("engineer is %q: not the name of an account", a.Engineer)
	}
	if len(a.Servers) == 0 || len(a.Servers) > maxServers || len(a.Ports) == 0 || len(a.Ports) > maxPorts {
		return fmt.Errorf("%d servers and %d ports: there must be 1 to %d and 1 to %d", len(a.Servers), len(a.Ports), maxServers, maxPorts)
	}
	for _, s := range a.Servers {
		if !serverForm.MatchString(s) {
			return fmt.Errorf("server is %q", s)
		}
	}
	for _, p := range a.Ports {
		if p == 0 {
			return errors.New("port is 0")
		}
	}
	if err := checkTimes(a.Made, a.Expires, MaxApproval); err != nil {
		return err
	}
	if err := checkTime("not_before", a.NotBefore); err != nil {
		return err
	}
	if a.NotBefore.Before(a.Made) || !a.NotBefore.Before(a.Expires) {
		return errors.New("not_before lies outside of made and expires")
	}
	return nil
}

// Check reports what is wrong with the statement, whatever the time.
func (b BreakGlass) Check() error {
	if err := errors.Join(checkHead(b.Kind, KindBreakGlass, b.Fleet), checkID(b.ID), CheckReason(b.Reason)); err != nil {
		return err
	}
	if !policies.AccountName(b.Name) {
		return fmt.Errorf("name is %q", b.Name)
	}
	return checkTimes(b.Made, b.Expires, MaxBreakGlass)
}

// Check reports what is wrong with the statement, whatever the time.
func (d Drained) Check() error {
	if err := checkHead(d.Kind, KindDrained, d.Fleet); err != nil {
		return err
	}
	if !serverForm.MatchString(d.Server) || d.Server == "*" || strings.Contains(d.Server, ":") {
		return fmt.Errorf("server is %q", d.Server)
	}
	if d.Epoch == 0 {
		return errors.New("epoch is 0")
	}
	return checkTimes(d.Made, d.Expires, MaxDrained)
}

func checkHead(kind, want, fleet string) error {
	if kind != want {
		return fmt.Errorf("kind is %q, not %q", kind, want)
	}
	if fleet == "" || len(fleet) > maxName {
		return fmt.Errorf("fleet is %q", fleet)
	}
	return nil
}

func checkID(id string) error {
	if !idForm.MatchString(id) {
		return fmt.Errorf("id is %q, not 16 hex digits", id)
	}
	return nil
}

// CheckReason asks for words that a log and a terminal show as they are.
func CheckReason(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return errors.New("reason is missing")
	}
	if len(reason) > MaxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("reason is not one line of at most %d bytes", MaxReason)
	}
	return nil
}

func checkTimes(made, expires time.Time, most time.Duration) error {
	if err := errors.Join(checkTime("made", made), checkTime("expires", expires)); err != nil {
		return err
	}
	if life := expires.Sub(made); life <= 0 || life > most {
		return fmt.Errorf("in force for %s: at most %s", life, most)
	}
	return nil
}

func checkTime(name string, t time.Time) error {
	if t.IsZero() || t.Location() != time.UTC || !t.Equal(t.Truncate(time.Second)) {
		return fmt.Errorf("%s is no time in UTC and whole seconds", name)
	}
	return nil
}
