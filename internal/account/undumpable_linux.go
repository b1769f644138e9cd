package account

import (
	"fmt"
	"syscall"
)

// Of prctl(2), for which package syscall has no function.
const prSetDumpable = 4

// Undumpable keeps what this process holds in memory out of core files and from other processes of its user: no core is written, and nobody but root
// attaches or reads its memory. Becoming another user comes first.
func Undumpable() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); errno != 0 {
		return fmt.Errorf("forbidding others to read this process's memory: %w", errno)
	}
	return nil
}
