package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

// maxSmallFile bounds what is read whole, in bytes. The trust policy may be the longest.
const maxSmallFile = trust.MaxSize

// mount makes the kernel's own file systems visible.
func (b *boot) mount(context.Context) error {
	mounts := []struct {
		kind, at string
		flags    uintptr
		data     string
	}{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	return nil
}

// modules loads the kernel modules that the image lists, in that order.
func (b *boot) modules(context.Context) error {
	list, err := readSmall(release.StubModulesPath)
	if err != nil {
		return err
	}
	for file := range strings.Lines(string(list)) {
		if err := loadModule(strings.TrimSuffix(file, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// moduleParameters are of modules that would do something by themselves: bonding would make a device.
var moduleParameters = map[string]string{"bonding.ko": "max_bonds=0"}

func loadModule(file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("loading a kernel module: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.FinitModule(int(f.Fd()), moduleParameters[filepath.Base(file)], 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("loading kernel module %s: %w", file, err)
	}
	return nil
}

// readSmall reads a file of the initramfs.
func readSmall(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSmallFile {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, maxSmallFile)
	}
	return os.ReadFile(path)
}
