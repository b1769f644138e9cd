package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mayfly/internal/canonical"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/witness"
)

// Kind of the files about logs in a witness's state directory.
const kindLog = "mayfly-witness-log/1"

// Bounds of the state directory.
const (
	maxMemory = 64 << 10
	maxForks  = 16 // of a subject, kept as evidence; further ones are refused all the same
)

// logState is log-HASH.json: the newest checkpoint of a log.
type logState struct {
	Kind   string `json:"kind"`
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"` // lower-case hex
}

// memory is the state directory of one witness, which no other process writes to.
type memory struct {
	dir  string
	lock *os.File
}

// openMemory makes the directory, private to its user, and takes it.
func openMemory(dir string) (*memory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, hint.New(fmt.Errorf("making the witness's state directory: %w", err), "--state names a directory that this user may make")
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the witness's state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(hint.New(fmt.Errorf("taking %s: another witness has it", dir), "one process for each state directory"), f.Close())
	}
	return &memory{dir, f}, nil
}

func (m *memory) close() error { return m.lock.Close() }

func (m *memory) path(name string) string { return filepath.Join(m.dir, name) }

// publication reads the newest file of a subject that was seen. One that cannot be read is an error and never a beginning: a witness that
// forgets is worse than one that is silent.
func (m *memory) publication(of subject) (p witness.Publication, found bool, err error) {
	found, err = m.read(of.file, witness.MaxPublication, &p)
	return p, found, err
}

// remember makes a file the newest one of its subject.
func (m *memory) remember(of subject, p witness.Publication) error { return m.write(of.file, p) }

// keepFork keeps a second file of one version as evidence, up to a bound.
func (m *memory) keepFork(of subject, version uint64, sum string, p witness.Publication) error {
	name := fmt.Sprintf("%s%d-%s.json", of.fork, version, sum)
	forks, err := filepath.Glob(m.path(of.fork + "*.json"))
	if err != nil {
		return err
	}
	for _, f := range forks {
		if filepath.Base(f) == name {
			return nil
		}
	}
	if len(forks) >= maxForks {
		return nil
	}
	data, err := canonical.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(m.path(name), data, 0o600)
}

func logFile(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return "log-" + hex.EncodeToString(sum[:16]) + ".json"
}

// log reads the newest checkpoint of a log; its size is 0 before the first.
func (m *memory) log(origin string) (witness.Checkpoint, error) {
	c := witness.Checkpoint{Origin: origin, Root: sha256.Sum256(nil)}
	var l logState
	found, err := m.read(logFile(origin), maxMemory, &l)
	if err != nil || !found {
		return c, err
	}
	root, err := hex.DecodeString(l.Root)
	if l.Kind != kindLog || l.Origin != origin || l.Size < 0 || err != nil || len(root) != sha256.Size {
		return c, fmt.Errorf("%s is no memory of log %q", m.path(logFile(origin)), origin)
	}
	c.Size = l.Size
	copy(c.Root[:], root)
	return c, nil
}

func (m *memory) rememberLog(c witness.Checkpoint) error {
	return m.write(logFile(c.Origin), logState{kindLog, c.Origin, c.Size, hex.EncodeToString(c.Root[:])})
}

func (m *memory) read(name string, limit int, v any) (found bool, err error) {
	data, err := durable.ReadRegular(m.path(name), int64(limit))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = canonical.Parse(data, limit, v)
	}
	if err != nil {
		return false, hint.New(fmt.Errorf("reading the witness's memory: %s: %w", m.path(name), err), "restore it; removing it makes this witness forget what it has seen")
	}
	return true, nil
}

func (m *memory) write(name string, v any) error {
	data, err := canonical.Marshal(v)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(m.path(name), data, 0o600); err != nil {
		return fmt.Errorf("remembering: %s", strings.TrimPrefix(err.Error(), "writing "))
	}
	return nil
}
