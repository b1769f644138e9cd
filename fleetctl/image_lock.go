package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/rebuild/image"
)

var imageLockVerb = command.Verb{
	Name:    "image lock",
	Args:    "[--packages DIR] --out FILE",
	Summary: "choose today's packages and write them, by hash, into a lock file",
	Help: `Asks this machine's package sources for the current version of every package that the image needs, downloads them into
the package store, and writes the lock file: each package with its version and SHA-256. Nothing is installed. Everything
after this works from the lock file and the store alone.

Example:

  fleetctl image lock --out image.lock`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		packages := packagesFlag(fs)
		out := fs.String("out", "", "lock `file` to write")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *out == "" {
			return command.Usagef("--out is needed")
		}
		store, err := packageStore(*packages)
		if err != nil {
			return err
		}
		lock, err := image.Lock(ctx, image.Default(), store)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(*out, lock, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(c.Stdout, *out)
		return nil
	},
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
