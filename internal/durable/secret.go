package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"mayfly/internal/account"
	"mayfly/internal/hint"
)

// MaxSecret bounds a file that ReadSecret reads.
const MaxSecret = 64 << 10

// ReadSecret reads a private file. It refuses a symbolic link, anything but a regular file, more than MaxSecret bytes, a file that
// group or others may read, write or run, and a file of another owner than this user or root.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, hint.New(fmt.Errorf("reading secret %s: it is a symbolic link", path), "give the path of the file itself")
	}
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading secret: %w", err), "check that the file exists and that this user may read it")
	}
	data, err := readChecked(f, path)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("reading secret %s: %w", path, cerr)
	}
	if err != nil {
		clear(data)
		return nil, err
	}
	return data, nil
}

func readChecked(f *os.File, path string) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading secret %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, hint.New(fmt.Errorf("reading secret %s: not a regular file", path), "give the path of a file")
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, hint.New(fmt.Errorf("reading secret %s: mode %04o lets others at it", path, perm), "chmod 600 %s", path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("reading secret %s: its owner cannot be told", path)
	}
	if uid := os.Geteuid(); uid == 0 && stat.Uid != 0 { // whoever owns it needs it as it is
		return nil, hint.New(fmt.Errorf("reading secret %s: it belongs to user %s, not to root", path, account.Name(int(stat.Uid))),
			"run this as that user: %s", account.RunAs(int(stat.Uid)))
	} else if stat.Uid != 0 && int(stat.Uid) != uid {
		return nil, hint.New(fmt.Errorf("reading secret %s: it belongs to user %d, not to user %d", path, stat.Uid, uid),
			"chown %d %s", uid, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSecret+1))
	if err != nil {
		return data, fmt.Errorf("reading secret %s: %w", path, err)
	}
	if len(data) > MaxSecret {
		return data, hint.New(fmt.Errorf("reading secret %s: longer than %d bytes", path, MaxSecret), "this is not a key file")
	}
	return data, nil
}
