package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/rebuild/release"
)

// releaseDir is the directory that --release names: a path, or a version of this fleet.
func (d state) releaseDir(name string) string {
	if _, err := strconv.ParseUint(name, 10, 64); err == nil {
		return filepath.Join(d.releases(), name)
	}
	return name
}

// releaseStatement verifies a release's statement: signatures, fleet, validity, least version.
func releaseStatement(t *trust.Trust, dir string, now time.Time) (*release.Statement, []byte, error) {
	path := filepath.Join(dir, release.StatementFile)
	data, err := read(path, "`fleetctl image build` makes a release")
	if err != nil {
		return nil, nil, err
	}
	sigs, err := readSignatures(path)
	if err != nil {
		return nil, nil, err
	}
	s, err := release.Verify(t, data, sigs, now)
	if err != nil {
		return nil, nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", path, err), "%s", releaseHint(err, t)))
	}
	return s, data, nil
}

// releaseHint is the mend of what a release was refused for.
func releaseHint(err error, t *trust.Trust) string {
	if _, ok := errors.AsType[witness.ReleaseVerdict](err); ok {
		return "`fleetctl image publish` brings it to the witnesses; one that may not boot any more is signed again under a higher version"
	}
	r, ok := errors.AsType[*release.Refusal](err)
	if !ok {
		return "build the release again: `fleetctl image build`"
	}
	switch r.Reason {
	case release.Unsigned:
		return fmt.Sprintf("`fleetctl image sign` adds a signature; %d people have to sign", t.Threshold)
	case release.Unbuilt:
		return fmt.Sprintf("`fleetctl image rebuild` builds it again, compares, and signs; %d of the builders %s have to", t.BuilderThreshold, builderNames(t))
	case release.Unlogged, release.LogSplit, release.LogMalformed:
		return fmt.Sprintf("`fleetctl image publish` has it logged in %s, and cosigned by %d witnesses", ledger.Origin(t.Fleet), t.WitnessThreshold)
	case release.PartAltered, release.PartOversize, release.PartTruncated, partMissing, sbomDiffers, provenanceDiffers:
		return "copy the release again, or build it again from its lock file"
	}
	return "build and sign a newer release"
}

// part is a file of a release with what was signed about it.
type part struct {
	file string
	part release.Part
}

func parts(s *release.Statement) []part {
	all := []part{{release.KernelFile, s.Kernel}, {release.StubFile, s.Stub}, {release.RootFile, s.Root}}
	if s.UKI != nil {
		all = append(all, part{release.UKIFile, *s.UKI})
	}
	return all
}

// checkParts reads every file of a release and compares it with the statement.
func checkParts(s *release.Statement, dir string) error {
	for _, p := range parts(s) {
		f, err := openFile(filepath.Join(dir, p.file))
		if err != nil {
			return fmt.Errorf("checking the release: %w", err)
		}
		err = errors.Join(p.part.Copy(io.Discard, f), f.Close())
		if err != nil {
			return command.Refuse(hint.New(fmt.Errorf("%s: %w", filepath.Join(dir, p.file), err), "copy the release again, or build it again from its lock file"))
		}
	}
	lock, err := read(filepath.Join(dir, release.LockFile), "`fleetctl image build` puts it there")
	if err != nil {
		return err
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(lock)); sum != s.Lock {
		return command.Refuse(fmt.Errorf("%s: %s: SHA-256 %s, %s was signed", filepath.Join(dir, release.LockFile), release.PartAltered, sum, s.Lock))
	}
	return nil
}

// leastOf is the oldest release that may boot once this version is published, as it was asked for, or by default as those published before say: witnesses take
// none under which an older one would boot again.
func (d state) leastOf(version, asked uint64) (uint64, error) {
	published, err := d.publishedLeast()
	if err != nil {
		return 0, err
	}
	if asked == 0 {
		asked = min(published, version)
	}
	if asked < published || asked > version {
		return 0, hint.New(command.Usagef("a release %d under which none older than %d boots", version, asked), "--least is %d, as of the releases published so far, to the release's own version", published)
	}
	return asked, nil
}

// publishedLeast is the oldest release that may boot, by those published so far.
func (d state) publishedLeast() (uint64, error) {
	proofs, err := filepath.Glob(filepath.Join(d.releases(), "*", release.ProofFile))
	if err != nil {
		return 0, err
	}
	published := uint64(1)
	for _, proof := range proofs {
		path := filepath.Join(filepath.Dir(proof), release.StatementFile)
		data, err := readBounded(path, "", release.MaxStatement)
		if err != nil {
			return 0, err
		}
		s, err := release.Parse(data)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		published = max(published, s.Least)
	}
	return published, nil
}

// allowed refuses a release below the policy's min_version.
func allowed(s *release.Statement, least uint64) error {
	if s.Version < least {
		return command.Refuse(hint.New(fmt.Errorf("%s: version %d is older than %d, the policy's min_version", release.Older, s.Version, least),
			"`fleetctl image use` one from version %d on", least))
	}
	return nil
}

// current is the version that rebuilt servers boot; 0 when none was chosen. The store says it; DIR/release, while the store does not.
func (d state) current() (uint64, error) {
	if u, err := d.inUse(context.Background()); err != nil || u.Version != 0 {
		return u.Version, err
	}
	data, err := os.ReadFile(d.currentFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || v == 0 {
		return 0, hint.New(fmt.Errorf("%s: %q is no version", d.currentFile(), strings.TrimSpace(string(data))), "`fleetctl image use VERSION` writes it")
	}
	return v, nil
}

// unified is the release's unified kernel image to boot: the one signed for Secure Boot, where somebody has signed it.
func unified(dir string) string {
	if path := filepath.Join(dir, release.SignedUKIFile); exists(path) {
		return path
	}
	return filepath.Join(dir, release.UKIFile)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// release verifies the current release, statement and files.
func (d state) release(t *trust.Trust, least uint64, now time.Time) (rotate.Release, error) {
	v, err := d.current()
	if err != nil {
		return rotate.Release{}, err
	}
	if v == 0 {
		return rotate.Release{}, hint.New(errors.New("no release is in use"), "`fleetctl image build`, `fleetctl image sign` and `fleetctl image use VERSION` make one")
	}
	return d.releaseAt(t, v, least, now)
}

// absolute returns what names a file of a directory, wherever the process is.
func absolute(dir string) (func(name string) string, error) {
	abs, err := filepath.Abs(dir)
	return func(name string) string { return filepath.Join(abs, name) }, err
}
