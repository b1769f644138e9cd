package skprovider

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Variable is the environment variable that leads the library to a key's directory.
const Variable = "MAYFLY_SOFTWARE_SECURITY_KEY"

// Files of the directory.
const (
	stateFile   = "software-security-key.json"
	lockFile    = "lock"
	journalFile = "journal.jsonl"
	socketFile  = "touch" // of the Finger
)

// maxFile bounds the state and the journal.
const maxFile = 8 << 20

// warning stands in the state file for whoever opens it.
const warning = "a security key in SOFTWARE, for TESTS: it protects nothing"

// Device is a key: a directory that this process, other ones and the library share.
type Device struct{ dir string }

// state is all that a key is. Whoever changes it holds the lock.
type state struct {
	Warning     string     `json:"warning"`
	Settings    Settings   `json:"settings"`
	AAGUID      AAGUID     `json:"aaguid"`
	Attestation []byte     `json:"attestation"` // private key, PKCS #8
	Certificate []byte     `json:"certificate"`
	Secret      []byte     `json:"secret"` // wraps the keys in their handles
	Tries       int        `json:"tries"`  // left until the PIN is blocked for good
	InRow       int        `json:"in_row"` // wrong ones since it was plugged in
	Counter     uint32     `json:"counter"`
	Resident    []resident `json:"resident"`
}

// Create makes a key in a directory that is empty or not there.
func Create(dir string, m Make, s Settings) (*Device, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("making a software security key: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("making a software security key: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a software security key: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err == nil {
		return nil, fmt.Errorf("making a software security key: there is one in %s", dir)
	}
	private, certificate, err := m.certify()
	if err != nil {
		return nil, fmt.Errorf("certifying a software security key: %w", err)
	}
	st := state{Warning: warning, Settings: s, AAGUID: m.AAGUID, Certificate: certificate, Secret: make([]byte, secretBytes), Tries: pinTries}
	rand.Read(st.Secret)
	if st.Attestation, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		return nil, fmt.Errorf("certifying a software security key: %w", err)
	}
	d := &Device{dir: dir}
	return d, d.save(st)
}

// Open finds the key that Create made.
func Open(dir string) (*Device, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, stateFile))
	}
	if err != nil {
		return nil, hint.New(fmt.Errorf("opening a software security key: %w", err), "make one with skprovider.Create")
	}
	return &Device{dir: dir}, nil
}

// Environment is what a program needs to find the key.
func (d *Device) Environment() []string { return []string{Variable + "=" + d.dir} }

// Set changes how the key behaves, from the next thing that it is asked on.
func (d *Device) Set(change func(*Settings)) error {
	return d.update(func(st *state) error {
		s := st.Settings
		s.Flaws = slices.Clone(s.Flaws)
		change(&s)
		if err := s.check(); err != nil {
			return fmt.Errorf("setting up a software security key: %w", err)
		}
		st.Settings = s
		return nil
	})
}

// Reinsert pulls the key out and plugs it in again.
func (d *Device) Reinsert() error {
	return d.update(func(st *state) error { st.InRow = 0; return nil })
}

// Tries is how many wrong PINs it takes still until the PIN is blocked for good.
func (d *Device) Tries() (int, error) {
	st, err := d.load()
	return st.Tries, err
}

func (d *Device) path(name string) string { return filepath.Join(d.dir, name) }

func (d *Device) load() (state, error) {
	data, err := durable.ReadFile(d.path(stateFile), maxFile)
	if err != nil {
		return state{}, fmt.Errorf("reading a software security key: %w", err)
	}
	var st state
	if err := json.Unmarshal(data, &st); err != nil {
		return state{}, fmt.Errorf("reading a software security key: %w", err)
	}
	return st, nil
}

func (d *Device) save(st state) error {
	data, err := json.MarshalIndent(st, "", "  ")
	if err == nil {
		err = durable.WriteFile(d.path(stateFile), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing a software security key: %w", err)
	}
	return nil
}

// update changes the state under its lock. What the change returns goes to the caller; the state is kept all the same when that
// says so: a wrong PIN is an error and counts.
func (d *Device) update(change func(*state) error) error {
	lock, err := os.OpenFile(d.path(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking a software security key: %w", err)
	}
	defer lock.Close()
	for {
		if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("locking a software security key: %w", err)
	}
	st, err := d.load()
	if err != nil {
		return err
	}
	result := change(&st)
	if code := (*Error)(nil); result != nil && !errors.As(result, &code) {
		return result
	}
	return errors.Join(result, d.save(st))
}

// Entry is one thing that the key was asked.
type Entry struct {
	Operation   string `json:"operation"` // enroll, sign, resident
	Application string `json:"application,omitempty"`
	PIN         bool   `json:"pin"`     // one was given
	Touched     bool   `json:"touched"` // somebody touched it
	Code        Code   `json:"code"`    // 0: done
	Text        string `json:"text,omitempty"`
}

// note writes an entry to the journal. An entry is one write, so that two processes' entries never mix.
func (d *Device) note(e Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.path(journalFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	return errors.Join(err, f.Close())
}

// Journal is what the key was asked since it was made, oldest first.
func (d *Device) Journal() ([]Entry, error) {
	data, err := durable.ReadFile(d.path(journalFile), maxFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal of a software security key: %w", err)
	}
	var all []Entry
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("reading the journal of a software security key: %w", err)
		}
		all = append(all, e)
	}
	return all, nil
}
