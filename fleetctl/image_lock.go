package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/image"
)

var imageLockVerb = command.Verb{
	Name:    "image lock",
	Args:    "[--packages DIR] [--profile NAME] [--update] --out FILE",
	Summary: "choose today's packages and write them, by hash, into a lock file",
	Help: `Asks this machine's package sources for the current version of every package that the image needs, downloads them into
the package store, and writes the lock file: each package with its version and SHA-256. Nothing is installed. Everything
after this works from the lock file and the store alone.

The profile says for which machines the image is: cloud (the default), or metal with drivers of network cards.

--update moves the lock file that is there to today's packages, and lists what changed; when nothing did, it says so and leaves the
file alone. The list is what people review. An older version of a package in place of a newer one is refused: an archive that
was set back offers such. --allow-older takes it all the same.

Example:

  fleetctl image lock --out image.lock
  fleetctl image lock --update --out image.lock`,
	Run: runImageLock,
}

func runImageLock(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	packages := packagesFlag(fs)
	out := fs.String("out", "", "lock `file` to write")
	profile := fs.String("profile", "", "`name` of the profile: "+fmt.Sprint(image.Default().ProfileNames())+" (default cloud; with --update that of the lock file)")
	update := fs.Bool("update", false, "move the lock file that is there to today's packages, and list what changed")
	allowOlder := fs.Bool("allow-older", false, "with --update: let a package, the kernel, Go or the epoch go back")
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return err
	}
	if *out == "" {
		return command.Usagef("--out is needed")
	}
	if *update && *profile != "" {
		return command.Usagef("--update keeps the lock file's profile")
	}
	store, err := packageStore(*packages)
	if err != nil {
		return err
	}
	if *update {
		old, err := readLock(*out)
		if err != nil {
			return err
		}
		next, changes, err := newLock(ctx, old, store, *allowOlder)
		if err != nil {
			return err
		}
		if len(changes) > 0 {
			if err := durable.WriteFile(*out, next, 0o644); err != nil {
				return err
			}
		}
		return showChanges(c, *output, *out, changes)
	}
	spec, err := image.Default().Profile(orDefault(*profile))
	if err != nil {
		return err
	}
	lock, err := image.Lock(ctx, spec, store)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(*out, lock, 0o644); err != nil {
		return err
	}
	return show(c.Stdout, *output, struct {
		Lock string `json:"lock"`
	}{*out}, []string{*out}, nil)
}

func orDefault(profile string) string {
	if profile == "" {
		return image.DefaultProfile
	}
	return profile
}

func readLock(path string) (image.LockFile, error) {
	data, err := read(path, "`fleetctl image lock` makes one; --update moves it")
	if err != nil {
		return image.LockFile{}, err
	}
	l, err := image.ParseLock(data)
	if err != nil {
		return l, hint.New(fmt.Errorf("%s: %w", path, err), "make a new one: fleetctl image lock --out %s", path)
	}
	return l, nil
}

// newLock is a lock file of today's packages, for the same machines as an older one.
func newLock(ctx context.Context, old image.LockFile, store string, allowOlder bool) ([]byte, []image.Change, error) {
	spec, err := image.Default().Profile(old.Profile)
	if err != nil {
		return nil, nil, err
	}
	data, err := image.Update(ctx, spec, store, old)
	if err != nil {
		return nil, nil, err
	}
	next, err := image.ParseLock(data)
	if err != nil {
		return nil, nil, err
	}
	changes := image.Changes(old, next)
	return data, changes, checkAge(changes, allowOlder)
}

// Reasons of a lock file that would go back.
const (
	packageOlder   = "package_older"
	toolchainOlder = "toolchain_older"
	epochOlder     = "epoch_older"
)

// checkAge refuses to go back.
func checkAge(changes []image.Change, allowOlder bool) error {
	for _, ch := range changes {
		if ch.What != image.Older || allowOlder {
			continue
		}
		reason, mend := packageOlder, fmt.Sprintf("look why the archive offers it (apt-cache policy %s)", ch.Input)
		switch ch.Input {
		case "go":
			reason, mend = toolchainOlder, "build fleetctl with the newer Go"
		case "epoch":
			reason, mend = epochOlder, "the newest package is gone; servers take the epoch for the earliest time that it can be; look why the archive has none as new"
		case "kernel":
			mend = "look why the archive offers it (apt-cache policy linux-image-amd64 linux-image-cloud-amd64)"
		}
		return command.Refuse(hint.New(fmt.Errorf("%s: %s %s is older than %s, which is locked", reason, ch.Input, ch.New, ch.Old),
			"%s; `fleetctl image lock --update --allow-older` takes it", mend))
	}
	return nil
}

// showChanges lists what a lock file's update changed.
func showChanges(c *command.Call, output, lock string, changes []image.Change) error {
	if len(changes) == 0 {
		fmt.Fprintf(c.Stderr, "fleetctl: nothing has changed since %s was made\n", lock)
	}
	rows := [][]string{}
	for _, ch := range changes {
		rows = append(rows, []string{ch.Input, dash(ch.Old), dash(ch.New), ch.What})
	}
	return show(c.Stdout, output, struct {
		Lock    string         `json:"lock"`
		Changed bool           `json:"changed"`
		Changes []image.Change `json:"changes"`
	}{lock, len(changes) > 0, changes}, []string{"INPUT", "OLD", "NEW", "WHAT"}, rows)
}

// packageStore is the directory that --packages names, or one in the user's cache.
func packageStore(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the package store: %w", err)
	}
	return filepath.Join(cache, "mayfly", "packages"), nil
}
