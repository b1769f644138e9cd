package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
)

var imageBuildVerb = command.Verb{
	Name:    "image build",
	Args:    "--dir DIR --lock FILE --version N [--twice]",
	Summary: "build our programs and the image into an unsigned release",
	Help: `Builds the image's own programs from the source tree, and the image from the lock file and the package store, into
DIR/public/releases/N, with the statement that people sign (release.json) and a unified kernel image for UEFI (mayfly.efi), which holds the
trust policy in force. Nothing is fetched: Go modules have to be there, as go.sum says.

Where the policy in force has [history], it builds the commit at the source's HEAD, and only if
"fleetctl verify-history" passes; what lies beside what was committed is not built.

--twice builds everything a second time in another place and compares bit for bit; a difference fails, and nothing is kept.

Example:

  fleetctl image build --dir lab --lock image.lock --version 7 --twice`,
	Run: runImageBuild,
}

// Defaults of a release.
const (
	defaultValid  = 30 * 24 * time.Hour
	defaultMaxAge = 24 * time.Hour
)

func runImageBuild(ctx context.Context, c *command.Call) (err error) {
	fs := c.Flags()
	dir := dirFlag(fs)
	lockFile := fs.String("lock", "", "lock `file`")
	version := fs.Uint64("version", 0, "`number` of the release; it rises")
	twice := fs.Bool("twice", false, "build a second time elsewhere and compare bit for bit")
	packages := packagesFlag(fs)
	source := fs.String("source", ".", "`directory` of mayfly's source tree")
	valid := fs.Duration("valid", defaultValid, "how long the release may boot servers")
	maxAge := fs.Duration("max-age", defaultMaxAge, "longest life of a server under this release")
	minPolicy := fs.Uint64("min-policy", 1, "least policy `version` that a server under this release obeys")
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return err
	}
	if *lockFile == "" || *version == 0 {
		return command.Usagef("--lock and --version (1 or more) are needed")
	}
	if *valid < time.Minute || *maxAge < time.Minute {
		return command.Usagef("--valid and --max-age are a minute at least")
	}
	d := state(*dir)
	t, trustPolicy, err := d.trust()
	if err != nil {
		return err
	}
	lock, err := read(*lockFile, "`fleetctl image lock` makes it")
	if err != nil {
		return err
	}
	store, err := packageStore(*packages)
	if err != nil {
		return err
	}
	out := filepath.Join(d.releases(), strconv.FormatUint(*version, 10))
	if _, err := os.Lstat(out); err == nil {
		return hint.New(fmt.Errorf("release %d is there already: %s", *version, out), "choose a higher --version")
	}
	if err := os.MkdirAll(d.releases(), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(d.releases(), ".build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	tree, err := d.passHistory(ctx, c, *source, work)
	if err != nil {
		return err
	}
	first := filepath.Join(work, "first")
	built, err := buildOnce(ctx, c, lock, store, tree, first)
	if err != nil {
		return err
	}
	if *twice {
		if err := buildAgain(ctx, c, lock, store, tree, first); err != nil {
			return err
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	s := &release.Statement{Kind: release.Kind, Fleet: t.Fleet, Version: *version, Least: 1, Profile: release.ProfileCloud, NotBefore: now, NotAfter: now.Add(*valid),
		MaxAge: int64(*maxAge / time.Second), Kernel: built.Kernel, Stub: built.Stub, Root: built.Root, Cmdline: built.Cmdline,
		Lock: built.Lock, MinPolicy: *minPolicy}
	if err := makeUKI(first, built, trustPolicy, s); err != nil {
		return err
	}
	data, err := s.Marshal()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(first, release.StatementFile), data, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(first, 0o755); err != nil {
		return err
	}
	if err := os.Rename(first, out); err != nil {
		return fmt.Errorf("keeping the release: %w", err)
	}
	var rows [][]string
	for _, p := range parts(s) {
		rows = append(rows, []string{p.file, strconv.FormatInt(p.part.Size, 10), p.part.SHA256})
	}
	if err := show(c.Stdout, *output, struct {
		Release   *release.Statement `json:"release"`
		Directory string             `json:"directory"`
		Same      bool               `json:"built_twice_the_same"`
	}{s, out, *twice}, []string{"FILE", "BYTES", "SHA-256"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl image sign --release %d` by %d people, then `fleetctl image use %d`\n", *version, t.Threshold, *version)
	return nil
}

// buildOnce builds programs and image below dir's parent and into dir.
func buildOnce(ctx context.Context, c *command.Call, lock []byte, store, source, dir string) (image.Result, error) {
	began := time.Now()
	programs, err := image.Programs(ctx, source, dir+"-programs")
	if err != nil {
		return image.Result{}, hint.New(err, "--source names mayfly's source tree; Go has to be installed")
	}
	r, err := image.Build(ctx, image.Inputs{Lock: lock, Store: store, Programs: programs}, dir)
	if err != nil {
		return r, err
	}
	fmt.Fprintf(c.Stderr, "fleetctl: image built in %.1f s\n", time.Since(began).Seconds())
	return r, nil
}

// buildAgain builds in another directory, and compares every file.
func buildAgain(ctx context.Context, c *command.Call, lock []byte, store, source, first string) (err error) {
	elsewhere, err := os.MkdirTemp("", "mayfly-second-build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(elsewhere)) }()
	second := filepath.Join(elsewhere, "image")
	if _, err := buildOnce(ctx, c, lock, store, source, second); err != nil {
		return err
	}
	for _, name := range []string{release.KernelFile, release.StubFile, release.RootFile, release.LockFile} {
		if err := same(filepath.Join(first, name), filepath.Join(second, name)); err != nil {
			return hint.New(fmt.Errorf("the second build differs: %w", err), "the image is not reproducible: do not sign it")
		}
	}
	fmt.Fprintln(c.Stderr, "fleetctl: built twice, the same bit for bit")
	return nil
}

// same reports the first place at which two files differ.
func same(a, b string) (err error) {
	var files [2]*os.File
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	const chunk = 1 << 20
	var bufs [2][]byte
	bufs[0], bufs[1] = make([]byte, chunk), make([]byte, chunk)
	for offset := int64(0); ; {
		n, err := io.ReadFull(files[0], bufs[0])
		m, err2 := io.ReadFull(files[1], bufs[1])
		if !bytes.Equal(bufs[0][:n], bufs[1][:m]) {
			i := 0
			for i < min(n, m) && bufs[0][i] == bufs[1][i] {
				i++
			}
			return fmt.Errorf("%s at byte %d", filepath.Base(a), offset+int64(i))
		}
		ended, ended2 := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err2, io.EOF) || errors.Is(err2, io.ErrUnexpectedEOF)
		switch {
		case ended && ended2:
			return nil
		case err != nil && !ended:
			return err
		case err2 != nil && !ended2:
			return err2
		}
		offset += int64(n)
	}
}
