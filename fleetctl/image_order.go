package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

// Defaults of a release.
const (
	defaultValid  = 30 * 24 * time.Hour
	defaultMaxAge = 24 * time.Hour
)

// order is what a release is made from, and what its statement is to say.
type order struct {
	lock    []byte
	store   string
	version uint64
	twice   bool

	source        string
	valid, maxAge time.Duration
	minPolicy     uint64
	least         uint64 // 0: as the published releases say
	name          string
}

// orderFlags adds the flags of what people decide about a release.
func orderFlags(fs *flag.FlagSet) *order {
	o := new(order)
	fs.StringVar(&o.source, "source", ".", "`directory` of mayfly's source tree")
	fs.DurationVar(&o.valid, "valid", defaultValid, "how long the release may boot servers")
	fs.DurationVar(&o.maxAge, "max-age", defaultMaxAge, "longest life of a server under this release")
	fs.Uint64Var(&o.minPolicy, "min-policy", 1, "least policy `version` that a server under this release obeys")
	fs.Uint64Var(&o.least, "least", 0, "oldest `version` that may still boot once this release is published; it never falls (default: that of the releases published so far)")
	fs.StringVar(&o.name, "name", "", "`text` for people")
	return o
}

func (o *order) check() error {
	if o.valid < time.Minute || o.maxAge < time.Minute {
		return command.Usagef("--valid and --max-age are a minute at least")
	}
	return nil
}

// makeRelease builds a release and puts it in place whole, or not at all.
func (d state) makeRelease(ctx context.Context, c *command.Call, t *trust.Trust, trustPolicy []byte, o *order) (s *release.Statement, out string, err error) {
	out = filepath.Join(d.releases(), strconv.FormatUint(o.version, 10))
	if _, err := os.Lstat(out); err == nil {
		return nil, "", hint.New(fmt.Errorf("release %d is there already: %s", o.version, out), "choose a higher --version")
	}
	if err := os.MkdirAll(d.releases(), 0o755); err != nil {
		return nil, "", err
	}
	if o.least, err = d.leastOf(o.version, o.least); err != nil {
		return nil, "", err
	}
	work, err := os.MkdirTemp(d.releases(), ".build-")
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	tree, err := d.passHistory(ctx, c, o.source, work)
	if err != nil {
		return nil, "", err
	}
	first := filepath.Join(work, "first")
	in := image.Inputs{Lock: o.lock, Store: o.store}
	built, programs, err := buildOnce(ctx, c, in, tree, first)
	if err != nil {
		return nil, "", err
	}
	if o.twice {
		if err := buildAgain(ctx, c, in, tree, first); err != nil {
			return nil, "", err
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	s = &release.Statement{Kind: release.Kind, Fleet: t.Fleet, Name: o.name, Version: o.version, Least: o.least, Profile: built.Profile, NotBefore: now, NotAfter: now.Add(o.valid),
		MaxAge: int64(o.maxAge / time.Second), Kernel: built.Kernel, Stub: built.Stub, Root: built.Root, Cmdline: built.Cmdline,
		Lock: built.Lock, MinPolicy: o.minPolicy}
	if err := makeUKI(first, built, trustPolicy, s); err != nil {
		return nil, "", err
	}
	if err := writeProvenance(first, o.lock, programs, sourceCommit(ctx, c, o.source, tree), s, built); err != nil {
		return nil, "", err
	}
	data, err := s.Marshal()
	if err != nil {
		return nil, "", err
	}
	if err := durable.WriteFile(filepath.Join(first, release.StatementFile), data, 0o644); err != nil {
		return nil, "", err
	}
	if err := os.Chmod(first, 0o755); err != nil {
		return nil, "", err
	}
	if err := os.Rename(first, out); err != nil {
		return nil, "", fmt.Errorf("keeping the release: %w", err)
	}
	return s, out, nil
}

// writeProvenance puts the statement of how a release was made beside it.
func writeProvenance(dir string, lock []byte, programs map[string]string, commit string, s *release.Statement, built image.Result) error {
	var subjects []image.Subject
	for _, p := range parts(s) {
		subjects = append(subjects, image.Subject{Name: p.file, SHA256: p.part.SHA256})
	}
	subjects = append(subjects, image.Subject{Name: release.SBOMFile, SHA256: built.SBOM.SHA256})
	data, err := image.Provenance(lock, programs, commit, subjects)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, release.ProvenanceFile), data, 0o644)
}

// buildOnce builds programs and image below dir's parent and into dir.
func buildOnce(ctx context.Context, c *command.Call, in image.Inputs, source, dir string) (image.Result, map[string]string, error) {
	began := time.Now()
	programs, err := image.Programs(ctx, source, dir+"-programs")
	if err != nil {
		return image.Result{}, nil, hint.New(err, "--source names mayfly's source tree; Go has to be installed")
	}
	in.Programs = programs
	r, err := image.Build(ctx, in, dir)
	if err != nil {
		return r, nil, err
	}
	fmt.Fprintf(c.Stderr, "fleetctl: image built in %.1f s\n", time.Since(began).Seconds())
	if len(r.NoFirmware) > 0 && !in.Fresh {
		fmt.Fprintf(c.Stderr, "fleetctl: note: no package holds firmware that drivers may ask for: %s\n", strings.Join(r.NoFirmware, ", "))
	}
	return r, programs, nil
}

// buildAgain builds in another directory, from the packages themselves, and compares every file.
func buildAgain(ctx context.Context, c *command.Call, in image.Inputs, source, first string) (err error) {
	elsewhere, err := os.MkdirTemp("", "mayfly-second-build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(elsewhere)) }()
	second := filepath.Join(elsewhere, "image")
	in.Fresh = true
	if _, _, err := buildOnce(ctx, c, in, source, second); err != nil {
		return err
	}
	for _, name := range []string{release.KernelFile, release.StubFile, release.RootFile, release.LockFile, release.SBOMFile} {
		if err := same(filepath.Join(first, name), filepath.Join(second, name)); err != nil {
			return hint.New(fmt.Errorf("the second build differs: %w", err), "the image is not reproducible: do not sign it")
		}
	}
	fmt.Fprintln(c.Stderr, "fleetctl: built twice, the same bit for bit")
	return nil
}
