package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/release"
)

// sysroot is where the root is mounted before it becomes "/".
const sysroot = "/sysroot"

// fetchRoot streams the root into memory while hashing it, and seals that memory: from then on nobody can change it.
func (b *boot) fetchRoot(ctx context.Context) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("reading how much memory is free: %w", err)
	}
	if free := info.Freeram * uint64(info.Unit); uint64(b.statement.Root.Size) > free/4*3 {
		return refusef(rootTooBig, "%d bytes, and %d of memory are free", b.statement.Root.Size, free)
	}
	fd, err := unix.MemfdCreate("root", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("making memory for the root: %w", err)
	}
	b.root = os.NewFile(uintptr(fd), "root")
	err = b.fetch(ctx, release.RootFile, b.statement.Root.Size, func(body io.Reader) error {
		if _, err := b.root.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := b.root.Truncate(0); err != nil {
			return err
		}
		return b.statement.Root.Copy(b.root, body)
	})
	if err != nil {
		return err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(b.root.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("sealing the root: %w", err)
	}
	b.say("root verified after %.2f s: %d bytes", time.Since(b.began).Seconds(), b.statement.Root.Size)
	return nil
}

// mountRoot mounts the sealed memory through a read-only loop device.
func (b *boot) mountRoot() (err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("asking for a loop device: %w", err)
	}
	device := fmt.Sprintf("/dev/loop%d", number)
	loop, err := os.OpenFile(device, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, loop.Close()) }()
	config := unix.LoopConfig{
		Fd:   uint32(b.root.Fd()),
		Size: 4096,
		Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR},
	}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return fmt.Errorf("attaching the root to %s: %w", device, err)
	}
	if err := os.MkdirAll(sysroot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, sysroot, "erofs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	return nil
}
