package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner is the user for whom root works, when the program runs itself through sudo. The zero value is nobody else: files stay
// as they are made.
type owner struct {
	uid, gid int
	set      bool
}

// callerOf reads who called, from what this program hands to itself through sudo.
func callerOf(getenv func(string) string) owner {
	if os.Geteuid() != 0 || getenv(envCaller) == "" {
		return owner{}
	}
	uid, err1 := strconv.Atoi(getenv("SUDO_UID"))
	gid, err2 := strconv.Atoi(getenv("SUDO_GID"))
	if err1 != nil || err2 != nil || uid <= 0 {
		return owner{}
	}
	return owner{uid, gid, true}
}

// give hands files to the owner, directories with all that is in them. Links are not followed.
func (o owner) give(paths ...string) error {
	if !o.set {
		return nil
	}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 {
				if err := os.Lchown(p, o.uid, o.gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("giving %s to user %d: %w", path, o.uid, err)
		}
	}
	return nil
}
