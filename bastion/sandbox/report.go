package sandbox

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Report is what a kernel enforces of a sandbox, in words, and what it lacks.
type Report struct {
	Enforced []string `json:"enforced"`
	Missing  []string `json:"missing"` // empty: nothing

	NoNetlink bool `json:"-"` // the machine's addresses cannot be listed any more
}

// landlockLayers are what came with which version of the kernel's Landlock.
var landlockLayers = []struct {
	version int
	name    string
	kernel  string
}{
	{2, "files", "5.19"},
	{3, "truncation of files", "6.2"},
	{4, "TCP ports", "6.7"},
	{6, "signals to other processes", "6.12"},
}

// Probe says what Apply would enforce here, and changes nothing.
func Probe(rules Rules) Report {
	return probe(landlockVersion(), seccompWorks(), rules.Filter && filterNeedsCapability())
}

func probe(landlock int, seccomp, keep bool) Report {
	capabilities := "no capabilities"
	if keep {
		capabilities = "no capabilities but CAP_NET_ADMIN, without which this kernel takes no address filter"
	}
	r := Report{Enforced: []string{"no new privileges", capabilities, "resource limits", "no dumps"}, Missing: []string{}, NoNetlink: keep}
	for _, l := range landlockLayers {
		if landlock >= l.version {
			r.Enforced = append(r.Enforced, "landlock: "+l.name)
		} else {
			r.Missing = append(r.Missing, fmt.Sprintf("landlock: %s (Linux %s with landlock among its LSMs)", l.name, l.kernel))
		}
	}
	if seccomp {
		r.Enforced = append(r.Enforced, "seccomp: system calls")
	} else {
		r.Missing = append(r.Missing, "seccomp: system calls")
	}
	return r
}

// Require is an error that names what is missing, or nil.
func (r Report) Require() error {
	if len(r.Missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: missing %s", ErrIncomplete, strings.Join(r.Missing, "; "))
}

// seccompWorks asks for a filter with no program: the kernel says EFAULT where it knows filters.
func seccompWorks() bool {
	if auditArch == 0 {
		return false
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, 0)
	return errno == unix.EFAULT
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
