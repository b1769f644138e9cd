package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mayfly/internal/hint"
	"mayfly/policies/plugin"
)

// maxProgram bounds a plugin's file.
const maxProgram = 256 << 20

// CheckDirectory refuses a plugin directory that somebody other than its owners could put a file into: each folder on the way belongs to one
// of owners, and nobody else may write to it (in a folder like /tmp, nobody else may move what is not theirs).
func CheckDirectory(dir string, owners []uint32) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return fmt.Errorf("looking at the plugin directory: %w", err)
	}
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("looking at the plugin directory: %w", err)
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is no directory", path)
		}
		open := info.Mode().Perm()&0o022 != 0
		if path != dir && info.Mode()&os.ModeSticky != 0 {
			open = false
		}
		if err := checkOwner(path, info, owners); err != nil {
			return err
		}
		if open {
			return hint.New(fmt.Errorf("%s has mode %04o: others could put a plugin there", path, info.Mode().Perm()), "chmod go-w %s", path)
		}
		if path == "/" {
			return nil
		}
	}
}

func checkOwner(path string, info os.FileInfo, owners []uint32) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !slices.Contains(owners, stat.Uid) {
		return hint.New(fmt.Errorf("%s does not belong to root", path), "chown root %s", path)
	}
	return nil
}

// Load copies a plugin's file into memory that nobody can change any more, and returns it if it is the one that is pinned. What is run is
// the copy: it does not matter what becomes of the file after it was hashed.
func Load(dir string, p plugin.Pin, owners []uint32) (program *os.File, err error) {
	if err := CheckDirectory(dir, owners); err != nil {
		return nil, err
	}
	if p.Name == "" || strings.ContainsAny(p.Name, "/\x00") || p.Name == "." || p.Name == ".." {
		return nil, fmt.Errorf("plugin name %q is no file name", p.Name)
	}
	path := filepath.Join(dir, p.Name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening plugin: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening plugin: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxProgram {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", path, maxProgram)
	}
	if err := checkOwner(path, info, owners); err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, hint.New(fmt.Errorf("%s has mode %04o: others could change it", path, info.Mode().Perm()), "chmod go-w %s", path)
	}
	return copySealed(f, p)
}

// copySealed copies and hashes in one go, and compares before the copy is given out.
func copySealed(f io.Reader, p plugin.Pin) (*os.File, error) {
	fd, err := unix.MemfdCreate("mayfly-plugin-"+p.Name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3, where every one of them can be run
		fd, err = unix.MemfdCreate("mayfly-plugin-"+p.Name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("making memory for plugin %s: %w", p.Name, err)
	}
	program := os.NewFile(uintptr(fd), p.Name)
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(program, h), io.LimitReader(f, maxProgram+1))
	if sum := hex.EncodeToString(h.Sum(nil)); err == nil && sum != p.SHA256 {
		err = hint.New(fmt.Errorf("plugin %s has SHA-256 %s, and the policy pins %s", p.Name, sum, p.SHA256),
			"put the file back, or pin the new one: fleetctl policy plugin-hash FILE")
	}
	if err == nil {
		_, err = unix.FcntlInt(program.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		return nil, errors.Join(err, program.Close())
	}
	return program, nil
}
