package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Implementation constants: bounds of the process as a whole. It needs two descriptors for each target and one for each connection.
const (
	maxFiles   = 65536
	maxThreads = 4096 // of its user, in all processes
)

// limitResources lowers limits that are above ours, and keeps the process' memory out of core dumps and other processes' reach.
func limitResources() error {
	for _, l := range []struct {
		name     string
		resource int
		most     uint64
	}{
		{"core", unix.RLIMIT_CORE, 0},
		{"nofile", unix.RLIMIT_NOFILE, maxFiles},
		{"nproc", unix.RLIMIT_NPROC, maxThreads},
		{"memlock", unix.RLIMIT_MEMLOCK, 0},
		{"msgqueue", unix.RLIMIT_MSGQUEUE, 0},
	} {
		var now unix.Rlimit
		if err := unix.Prlimit(0, l.resource, nil, &now); err != nil {
			return fmt.Errorf("reading limit %s: %w", l.name, err)
		}
		next := unix.Rlimit{Cur: min(now.Max, l.most), Max: min(now.Max, l.most)}
		if err := unix.Prlimit(0, l.resource, &next, nil); err != nil {
			return fmt.Errorf("setting limit %s: %w", l.name, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding dumps: %w", err)
	}
	return nil
}

// forbidNewPrivileges makes set-user-ID programs and file capabilities void for this process and all that follow.
func forbidNewPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("forbidding new privileges: %w", errno)
	}
	return nil
}
