// Package chain reads and writes the directory of trust policies that follow one another: N.json, and N.json.sig with the signatures that let
// it follow. Who believes one of them gets to the next by trust.Advance and in no other way; where the files come from does not matter.
package chain

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
)

// File is where a version lies, and SignatureFile where its signatures lie. The first version has none.
func File(dir string, version uint64) string {
	return filepath.Join(dir, strconv.FormatUint(version, 10)+".json")
}

func SignatureFile(dir string, version uint64) string { return File(dir, version) + ".sig" }

// read returns a version's bytes and signatures, and nil where there is none yet.
func read(dir string, version uint64) (data, sigs []byte, err error) {
	data, err = durable.ReadRegular(File(dir, version), trust.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	sigs, err = durable.ReadRegular(SignatureFile(dir, version), trust.MaxSignatureBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return data, nil, nil // unsigned, as Advance will say
	}
	return data, sigs, err
}

// Follow goes from root to the end of what lies in the directory. A directory that is not there holds nothing. What lies there and does not follow
// is an error.
func Follow(root *trust.Trust, dir string) (*trust.Trust, []trust.Change, error) {
	newest, steps, err := trust.Follow(root, func(version uint64) (data, sigs []byte, err error) { return read(dir, version) })
	if err != nil {
		return nil, nil, hint.New(fmt.Errorf("following the trust policy in %s: %w", dir, err), "copy the controller's public/trust once more, whole and unchanged; `fleetctl trust verify` says where it breaks")
	}
	return newest, steps, nil
}

// Reach goes from a trust policy that is believed to the one whose bytes are wanted, through the directory, and no further: what somebody lays
// behind it stops nobody.
func Reach(from *trust.Trust, wanted []byte, dir string) (*trust.Trust, []trust.Change, error) {
	sum, end := trust.Sum(wanted), false
	newest, steps, err := trust.Follow(from, func(version uint64) (data, sigs []byte, err error) {
		if end {
			return nil, nil, nil
		}
		if data, sigs, err = read(dir, version); data != nil {
			end = trust.Sum(data) == sum
		}
		return data, sigs, err
	})
	if err == nil && !end {
		err = fmt.Errorf("it does not follow version %d, which was in force", from.Version)
	}
	if err != nil {
		return nil, nil, hint.New(err, "a trust policy changes by `fleetctl trust apply` alone, which keeps each step in public/trust; put the newest one back")
	}
	return newest, steps, nil
}

// Step returns the bytes of a version and the signatures that let it follow, and nil where there is none.
func Step(dir string, version uint64) (data, sigs []byte, err error) { return read(dir, version) }

// Write puts a step into the directory, its signatures first, so that nobody reads it without.
func Write(dir string, version uint64, data, sigs []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the directory of trust policies: %w", err)
	}
	if len(sigs) > 0 {
		if err := durable.WriteFile(SignatureFile(dir, version), sigs, 0o644); err != nil {
			return err
		}
	}
	return durable.WriteFile(File(dir, version), data, 0o644)
}

// Seen is the newest trust policy that was in force. Its zero value is none.
type Seen struct {
	Version uint64
	Sum     string
}

// maxSeen bounds the file, in bytes: a number, a hash, a space and a line's end.
const maxSeen = 128

// ReadSeen reads what Remember wrote; nothing is there before.
func ReadSeen(path string) (Seen, error) {
	data, err := durable.ReadRegular(path, maxSeen)
	if errors.Is(err, fs.ErrNotExist) {
		return Seen{}, nil
	}
	if err != nil {
		return Seen{}, fmt.Errorf("reading the newest trust policy seen: %w", err)
	}
	number, sum, _ := strings.Cut(strings.TrimSuffix(string(data), "\n"), " ")
	version, err := strconv.ParseUint(number, 10, 64)
	if s := (Seen{version, sum}); err == nil && version > 0 && len(sum) == 2*sha256.Size && s.String() == string(data) {
		return s, nil
	}
	return Seen{}, hint.New(fmt.Errorf("reading the newest trust policy seen: %s is not of the form VERSION SHA256", path),
		"find out who changed it; without it this machine would follow an older trust policy")
}

func (s Seen) String() string { return fmt.Sprintf("%d %s\n", s.Version, s.Sum) }

// Remember keeps it durably.
func (s Seen) Remember(path string) error { return durable.WriteFile(path, []byte(s.String()), 0o600) }

// Check refuses to go back, or aside: to an older trust policy than the one that was in force, or to another of its version. passed are the hashes
// of all that lies on the way, by version.
func (s Seen) Check(newest uint64, passed map[uint64]string) error {
	if s.Version == 0 {
		return nil
	}
	if newest < s.Version {
		return &trust.Refusal{Reason: trust.Older, Err: fmt.Errorf("version %d, and %d was in force here", newest, s.Version)}
	}
	if sum, ok := passed[s.Version]; ok && sum != s.Sum {
		return &trust.Refusal{Reason: trust.Forked, Err: fmt.Errorf("version %d was in force here with sha256 %s, and this one of it has %s", s.Version, s.Sum, sum)}
	}
	return nil
}

// Load is Follow by one who remembers, in a file, the newest that was in force: it never leads back behind that, or aside. It does not change the file.
func Load(root *trust.Trust, dir, seenFile string) (*trust.Trust, []trust.Change, error) {
	newest, steps, err := Follow(root, dir)
	if err != nil {
		return nil, nil, err
	}
	seen, err := ReadSeen(seenFile)
	if err != nil {
		return nil, nil, err
	}
	if err := seen.Check(newest.Version, Passed(root, steps)); err != nil {
		return nil, nil, hint.New(fmt.Errorf("following the trust policy in %s: %w", dir, err),
			"bring all of the controller's public/trust here; a trust policy that was in force is never taken back, only followed by another")
	}
	return newest, steps, nil
}

// Passed are the hashes of a root and of all steps from it, by version.
func Passed(root *trust.Trust, steps []trust.Change) map[uint64]string {
	passed := map[uint64]string{root.Version: root.Sum()}
	for _, s := range steps {
		passed[s.Trust.Version] = s.Trust.Sum()
	}
	return passed
}
