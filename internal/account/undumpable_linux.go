package account

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Undumpable keeps what this process holds in memory out of core files and from other processes of its user: no core is written, and nobody but root
// attaches or reads its memory. Becoming another user comes first.
func Undumpable() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding others to read this process's memory: %w", err)
	}
	return nil
}
