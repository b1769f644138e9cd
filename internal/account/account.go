// Package account makes root act as the user whom a directory or key belongs to, so that what root types by hand leaves nothing behind that
// the service, which runs as that user, cannot read.
package account

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"mayfly/internal/hint"
)

// self is who acts now; tests replace it.
var self = os.Geteuid

// Owner is who owns path.
func Owner(path string) (uid, gid int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("the owner of %s cannot be told", path)
	}
	return int(stat.Uid), int(stat.Gid), nil
}

// ActAsOwner gives up root for good, for the whole process, where path belongs to another user; it says whether it did. Who is neither
// root nor the owner is refused.
func ActAsOwner(path string) (bool, error) {
	uid, gid, err := Owner(path)
	if err != nil {
		return false, err
	}
	switch now := self(); {
	case now == uid:
		return false, nil
	case now != 0:
		return false, hint.New(fmt.Errorf("%s belongs to user %s, not to %s", path, Name(uid), Name(now)), "run this as that user: %s", RunAs(uid))
	}
	return true, act(uid, gid, false)
}

// Act gives up root for good, for the whole process, for this user, with this group before its own ones; -1 is the user's own.
func Act(uid, gid int) error { return act(uid, gid, gid >= 0) }

// act becomes uid. The group gid is for a user that the machine does not know, or kept in any case.
func act(uid, gid int, keep bool) error {
	groups := []int{}
	if gid >= 0 {
		groups = append(groups, gid)
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		if own, err := strconv.Atoi(u.Gid); err == nil && !keep {
			gid, groups = own, []int{own}
		}
		if list, err := u.GroupIds(); err == nil {
			for _, text := range list {
				if g, err := strconv.Atoi(text); err == nil && g != gid {
					groups = append(groups, g)
				}
			}
		}
	}
	if gid < 0 {
		gid = uid // as useradd does, for a user that the machine does not know
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("becoming user %s: setting groups: %w", Name(uid), err)
	}
	if err := become(uid, gid); err != nil {
		return fmt.Errorf("becoming user %s: %w", Name(uid), err)
	}
	return nil
}

// Name is what the machine calls a user, or its number.
func Name(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// RunAs is the beginning of a command line that runs the rest of it as a user.
func RunAs(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return "runuser -u " + u.Username + " --"
	}
	return fmt.Sprintf("setpriv --reuid=%d --regid=%d --clear-groups --", uid, uid)
}
