package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

const runSize = "size=16m,nr_inodes=4k,mode=0755"

// handOver makes the root "/", empties the initramfs, and becomes the root's init. /run is the one place of the new root that can
// be written: mayfly-init finds ticket, trust policy and release there.
func (b *boot) handOver(context.Context) error {
	if err := b.switchRoot(); err != nil {
		return refusef(rootUnusable, "%w", err)
	}
	err := unix.Exec(release.InitPath, []string{release.InitPath}, []string{"PATH=/usr/sbin:/usr/bin"})
	return refusef(rootUnusable, "starting %s: %w", release.InitPath, err)
}

func (b *boot) switchRoot() error {
	if err := b.mountRoot(); err != nil {
		return err
	}
	run := filepath.Join(sysroot, "run")
	if err := unix.Mount("tmpfs", run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, runSize); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if err := b.leave(filepath.Join(sysroot, release.RunDir)); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(dir, sysroot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s: %w", dir, err)
		}
	}
	if err := emptyInitramfs(); err != nil {
		return err
	}
	if err := os.Chdir(sysroot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	return os.Chdir("/")
}

// leave puts what was believed into dir.
func (b *boot) leave(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	files := map[string][]byte{
		ticket.File:           b.ticketData,
		ticket.SignatureFile:  b.ticketSig,
		ticket.TrustFile:      b.trustData,
		release.StatementFile: b.statementData,
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// emptyInitramfs removes the files of the initramfs, so that their memory is free again. What is mounted below it stays.
func emptyInitramfs() error {
	var root unix.Stat_t
	if err := unix.Lstat("/", &root); err != nil {
		return fmt.Errorf("looking at the initramfs: %w", err)
	}
	var clean func(dir string) error
	clean = func(dir string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			var st unix.Stat_t
			if err := unix.Lstat(name, &st); err != nil {
				return err
			}
			if st.Dev != root.Dev {
				continue
			}
			if e.IsDir() {
				if err := clean(name); err != nil {
					return err
				}
			}
			// A directory with a mount below it stays.
			if err := os.Remove(name); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
		return nil
	}
	if err := clean("/"); err != nil {
		return fmt.Errorf("emptying the initramfs: %w", err)
	}
	return nil
}
