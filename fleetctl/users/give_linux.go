package users

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mayfly/internal/account"
	"mayfly/internal/hint"
)

// LayOut gives everything to its owner; root alone can. It makes the directories that are needed, and removes nothing. It gives away what is
// root's, or was the one user's who had the whole directory: what another user has put there is named, and left as it is. Each path is opened
// without following a link, and what was looked at is what is changed: who may write in the directory may exchange names meanwhile.
func (t Table) LayOut(dir string) error {
	if !t.Separate {
		return nil
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("laying out %s: %w", dir, err)
	}
	defer unix.Close(root)
	var stat unix.Stat_t
	if err := unix.Fstat(root, &stat); err != nil {
		return fmt.Errorf("laying out %s: %w", dir, err)
	}
	before := int(stat.Uid)
	if _, ours := t.roleOf(before); ours {
		before = 0 // it is laid out, and one of the three has got hold of it: nothing of theirs becomes another's
	}
	var left []error
	err = t.each(dir, func(path string, p place, info fs.FileInfo) error {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if info != nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		if err := t.give(root, name, p, before); err != nil {
			left = append(left, fmt.Errorf("laying out %s: %w", path, err))
		}
		return nil
	})
	return errors.Join(append(left, err)...)
}

// give makes one path its owner's, below the open directory root.
func (t Table) give(root int, name string, p place, before int) error {
	uid, ok := t.UID(p.owner)
	if !ok {
		return fmt.Errorf("nobody is %s", p.owner)
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	fd, err := unix.Openat2(root, name, how)
	if errors.Is(err, unix.ENOENT) && p.needed && p.mode&0o100 != 0 {
		if err := unix.Mkdirat(root, name, 0o700); err != nil {
			return err
		}
		fd, err = unix.Openat2(root, name, how)
	}
	if errors.Is(err, unix.ENOENT) && !p.needed {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	owner, kind := int(stat.Uid), stat.Mode&unix.S_IFMT
	switch {
	case kind != unix.S_IFREG && kind != unix.S_IFDIR && kind != unix.S_IFSOCK:
		return errors.New("it is no file, directory or socket")
	case owner != uid && owner != 0 && owner != before:
		return hint.New(fmt.Errorf("it belongs to %s, and not to root: nobody says what is in it", account.Name(owner)),
			"see what it is; then remove it, or give it away by hand: chown -h %s", account.Name(uid))
	case owner != uid && kind == unix.S_IFREG && stat.Nlink > 1:
		return hint.New(errors.New("it has another name as well (a hard link), and who gets it gets that"), "see what it is, and remove it")
	}
	gid := -1
	if p.group || p.owner == Signer || p.owner == Serve {
		gid = t.Group
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("giving it to %s: %w", account.Name(uid), err)
	}
	mode := p.mode
	if mode == 0 {
		mode = fs.FileMode(stat.Mode).Perm() &^ p.never
	}
	// Of a file opened by O_PATH the mode is changed through its own name in /proc, which leads to it and nothing else.
	if err := os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode); err != nil {
		return fmt.Errorf("changing its mode: %w", err)
	}
	return nil
}

// roleOf is which of the three a user is.
func (t Table) roleOf(uid int) (Role, bool) {
	for r, u := range t.uid {
		if u == uid && uid != 0 {
			return r, true
		}
	}
	return Nobody, false
}
