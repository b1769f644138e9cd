// Package sealed keeps passwords of other machines (BMCs) encrypted at rest: one age file each in a directory, and beside the
// directory one identity that opens them. Whoever has a copy of the directory, or of the inventory that names a password, has nothing.
package sealed

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Specification constants.
const (
	Prefix = "sealed:" // how a file says that a password is elsewhere
	suffix = ".age"
)

// Implementation constants.
const (
	MaxSecret = 512 // bytes of a secret
	maxFile   = 16 << 10
	maxFiles  = 10_000
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Secret is a password in memory. However it is printed, logged or encoded, it says nothing.
type Secret struct{ value string }

const hidden = "(sealed)"

// Reveal returns the password itself.
func (s Secret) Reveal() string { return s.value }

func (Secret) String() string               { return hidden }
func (Secret) GoString() string             { return hidden }
func (Secret) Format(f fmt.State, _ rune)   { io.WriteString(f, hidden) }
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(hidden) }

// Hide takes the secret out of a text that others made.
func (s Secret) Hide(text string) string {
	if s.value == "" {
		return text
	}
	for _, form := range s.forms() {
		text = strings.ReplaceAll(text, form, hidden)
	}
	return text
}

// forms are how the value may come back: as it is, and as JSON, addresses and authorization headers write it. The longest is first: one may hold
// another.
func (s Secret) forms() []string {
	forms := []string{s.value, url.QueryEscape(s.value), url.PathEscape(s.value), base64.StdEncoding.EncodeToString([]byte(s.value)),
		base64.RawURLEncoding.EncodeToString([]byte(s.value)), strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, s.value)}
	if quoted, err := json.Marshal(s.value); err == nil {
		forms = append(forms, string(quoted[1:len(quoted)-1]))
	}
	forms = slices.DeleteFunc(forms, func(f string) bool { return f == "" })
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(forms)
}

// Name is the name in a reference "sealed:NAME".
func Name(reference string) (string, error) {
	name, ok := strings.CutPrefix(reference, Prefix)
	if !ok || !nameForm.MatchString(name) {
		// The text itself is not shown: it may be a password that somebody wrote where a reference belongs.
		return "", hint.New(errors.New("not a reference to a sealed secret"), "write %q and seal the password itself: fleetctl secret seal NAME", Prefix+"NAME")
	}
	return name, nil
}

// Store is a directory of secrets and the identity that opens them.
type Store struct{ Dir, Identity string }

// Seal writes a secret, and makes the identity if there is none yet.
func (s Store) Seal(name string, secret []byte) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("secret name %q is not lower-case letters, digits and -", name)
	}
	if len(secret) == 0 || len(secret) > MaxSecret || bytes.ContainsAny(secret, "\x00\r\n") {
		return fmt.Errorf("the secret %q is not one line of 1 to %d bytes", name, MaxSecret)
	}
	id, err := s.identity()
	if errors.Is(err, fs.ErrNotExist) {
		id, err = s.generate()
	}
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, id.Recipient())
	if err != nil {
		return fmt.Errorf("sealing %q: %w", name, err)
	}
	if _, err := w.Write(secret); err != nil {
		return fmt.Errorf("sealing %q: %w", name, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("sealing %q: %w", name, err)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("sealing %q: %w", name, err)
	}
	return durable.WriteFile(filepath.Join(s.Dir, name+suffix), out.Bytes(), 0o600)
}

// Open returns the secret that a reference names.
func (s Store) Open(reference string) (Secret, error) {
	name, err := Name(reference)
	if err != nil {
		return Secret{}, err
	}
	id, err := s.identity()
	if err != nil {
		return Secret{}, err
	}
	data, err := durable.ReadRegular(filepath.Join(s.Dir, name+suffix), maxFile)
	if err != nil {
		return Secret{}, hint.New(fmt.Errorf("opening secret %q: %w", name, err), "seal it: fleetctl secret seal --dir DIR %s", name)
	}
	r, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		return Secret{}, hint.New(fmt.Errorf("opening secret %q: %w", name, err), "it was sealed for another identity: seal it again")
	}
	plain, err := io.ReadAll(io.LimitReader(r, MaxSecret+1))
	if err != nil || len(plain) == 0 || len(plain) > MaxSecret {
		return Secret{}, fmt.Errorf("opening secret %q: not 1 to %d bytes: %w", name, MaxSecret, err)
	}
	return Secret{string(plain)}, nil
}

// Sealed is a secret's file.
type Sealed struct {
	Name string    `json:"name"`
	Time time.Time `json:"sealed_at"`
	Good bool      `json:"opens"` // with the identity that is there
}

// List names the secrets, in order.
func (s Store) List() ([]Sealed, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing secrets: %w", err)
	}
	if len(entries) > maxFiles {
		return nil, fmt.Errorf("listing secrets: %s has more than %d files", s.Dir, maxFiles)
	}
	var list []Sealed
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !nameForm.MatchString(name) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("listing secrets: %w", err)
		}
		_, err = s.Open(Prefix + name)
		list = append(list, Sealed{Name: name, Time: info.ModTime().UTC().Truncate(time.Second), Good: err == nil})
	}
	slices.SortFunc(list, func(a, b Sealed) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (s Store) identity() (*age.X25519Identity, error) {
	data, err := durable.ReadSecret(s.Identity)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("reading %s: it is no identity", s.Identity) // what was read is not said
	}
	return id, nil
}

func (s Store) generate() (*age.X25519Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("making the identity of secrets: %w", err)
	}
	return id, durable.WriteFile(s.Identity, []byte(id.String()+"\n"), 0o600)
}
