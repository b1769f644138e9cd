package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/policies/trust"
	"mayfly/rebuild/boot"
	"mayfly/rebuild/release"
)

// inUse is the release that the store says servers boot; the zero Use while it says nothing.
func (d state) inUse(ctx context.Context) (u store.Use, err error) {
	err = d.ifThere(ctx, func(s store.Store) error {
		u, _, err = s.InUse(ctx)
		return err
	})
	return u, err
}

// ifThere reads from the store without changing it, wherever it is; one that nobody has made yet says nothing.
func (d state) ifThere(ctx context.Context, read func(store.Store) error) error {
	s, err := d.openReadOnly(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(read(s), s.Close())
}

// use puts down, durably, which release servers boot from now on: in the store, whose word counts, and in DIR/release, from which a store that says nothing
// yet takes it over.
func (d state) use(ctx context.Context, u store.Use) error {
	there := false
	if err := d.ifThere(ctx, func(store.Store) error { there = true; return nil }); err != nil {
		return err
	}
	if there {
		s, err := d.openStore(ctx)
		if err != nil {
			return err
		}
		err = errors.Join(s.UseRelease(ctx, u), s.Close())
		if errors.Is(err, store.ErrBad) {
			return command.Refuse(hint.New(fmt.Errorf("%s: %w", rotate.ReleaseBad, err), "build, sign and publish another release: what is bad stays bad"))
		}
		if err != nil {
			return err
		}
	}
	return durable.WriteFile(d.currentFile(), []byte(strconv.FormatUint(u.Version, 10)+"\n"), 0o644)
}

// takeOver has the store know which release is in use, where only DIR/release does: a fleet of before there were trains.
func takeOver(ctx context.Context, s store.Store, r rotate.Release, now time.Time) error {
	_, known, err := s.InUse(ctx)
	if err != nil || known {
		return err
	}
	return s.UseRelease(ctx, store.Use{Version: r.Statement.Version, Digest: fmt.Sprintf("%x", r.Digest), By: "DIR/release", At: now})
}

// releaseAt verifies a release that servers are to boot: statement, files, and that the ledger holds it.
func (d state) releaseAt(t *trust.Trust, v, least uint64, now time.Time) (rotate.Release, error) {
	dir := d.releaseDir(strconv.FormatUint(v, 10))
	s, data, err := releaseStatement(t, dir, now)
	if err != nil {
		return rotate.Release{}, err
	}
	if s.Version != v {
		return rotate.Release{}, command.Refuse(fmt.Errorf("%s says version %d", dir, s.Version))
	}
	if err := allowed(s, least); err != nil {
		return rotate.Release{}, err
	}
	if err := checkParts(s, dir); err != nil {
		return rotate.Release{}, err
	}
	if _, err := checkLogged(t, data, dir); err != nil {
		return rotate.Release{}, err
	}
	return releaseIn(dir, s, data, v)
}

// goBack verifies the release that servers are brought back to. The witnesses let none boot that is older than the oldest which a published release names.
func (d state) goBack(t *trust.Trust, v, least uint64, now time.Time) (rotate.Release, error) {
	published, err := d.publishedLeast()
	if err != nil {
		return rotate.Release{}, err
	}
	if v < published {
		return rotate.Release{}, command.Refuse(hint.New(fmt.Errorf("%s: release %d would be booted, and a published release says that none older than %d boots", release.Older, v, published),
			"build the older sources again under a higher version, sign, publish and `fleetctl image use` that"))
	}
	return d.releaseAt(t, v, least, now)
}

// releaseIn is a release that was verified, as rotate boots it.
func releaseIn(dir string, s *release.Statement, data []byte, v uint64) (rotate.Release, error) {
	abs, err := absolute(dir)
	if err != nil {
		return rotate.Release{}, err
	}
	return rotate.Release{Statement: *s, Digest: sha256.Sum256(data), Path: boot.ReleasePath(v),
		Kernel: abs(release.KernelFile), Stub: abs(release.StubFile), Root: abs(release.RootFile), Data: data, UKI: unified(abs(""))}, nil
}
