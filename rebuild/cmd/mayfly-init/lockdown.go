package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// setting is one kernel setting. needed: the machine does not go on without it.
type setting struct {
	name, value string
	needed      bool
}

// settings close what could carry memory out of a RAM-only machine, or new code into its kernel. They are applied after the
// modules are loaded; the last one cannot be undone.
var settings = []setting{
	{"kernel/core_pattern", "|/bin/false", true}, // no process leaves its memory behind
	{"kernel/core_pipe_limit", "1", false},
	{"fs/suid_dumpable", "0", true},
	{"kernel/sysrq", "0", true},
	{"kernel/ctrl-alt-del", "0", true},
	{"kernel/dmesg_restrict", "1", true},
	{"kernel/kptr_restrict", "2", true},
	{"kernel/perf_event_paranoid", "3", false},
	{"kernel/unprivileged_bpf_disabled", "1", true},
	{"kernel/yama/ptrace_scope", "3", true}, // nobody attaches to anybody, and this cannot be undone
	{"net/core/bpf_jit_harden", "2", true},
	{"kernel/randomize_va_space", "2", true},
	{"vm/unprivileged_userfaultfd", "0", false},
	{"dev/tty/ldisc_autoload", "0", false},
	{"kernel/printk", "3 3 1 3", false}, // the console says stages only
	{"user/max_user_namespaces", "0", true},
	{"vm/swappiness", "0", false},
	{"fs/protected_symlinks", "1", true},
	{"fs/protected_hardlinks", "1", true},
	{"fs/protected_fifos", "2", false},
	{"fs/protected_regular", "2", false},
	{"net/ipv4/conf/all/accept_redirects", "0", true},
	{"net/ipv4/conf/all/send_redirects", "0", true},
	{"net/ipv4/conf/all/accept_source_route", "0", true},
	{"net/ipv4/tcp_syncookies", "1", true},
	{"net/ipv6/conf/all/disable_ipv6", "1", false},
	{"net/ipv6/conf/default/disable_ipv6", "1", false},
	{"kernel/kexec_load_disabled", "1", true},
	{"kernel/modules_disabled", "1", true},
}

// lockdown applies the settings below root, and reads each back.
func lockdown(root string, list []setting) error {
	for _, s := range list {
		path := filepath.Join(root, s.name)
		if err := os.WriteFile(path, []byte(s.value), 0); err != nil {
			if !s.needed && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return fmt.Errorf("setting %s to %q: %w", s.name, s.value, err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading %s back: %w", s.name, err)
		}
		if strings.Join(strings.Fields(string(got)), " ") != s.value {
			return fmt.Errorf("setting %s to %q: it is %q", s.name, s.value, strings.TrimSpace(string(got)))
		}
	}
	return nil
}
