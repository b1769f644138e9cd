//go:build !linux

package account

import "syscall"

// become changes the identities that there are; the saved one follows the real one.
func become(uid, gid int) error {
	if err := syscall.Setregid(gid, gid); err != nil {
		return err
	}
	return syscall.Setreuid(uid, uid)
}
