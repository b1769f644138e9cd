package account

import "syscall"

// become changes all three of a process's identities.
func become(uid, gid int) error {
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}
