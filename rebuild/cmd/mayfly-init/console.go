package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// console is where stages are told. It never gets anything that a service or a user said.
type console struct {
	mu sync.Mutex // one line at a time
	w  io.Writer
}

func (c *console) stage(format string, args ...any) {
	line := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...))
	c.mu.Lock()
	defer c.mu.Unlock()
	// A console that cannot be written to is nobody's loss.
	_, _ = io.WriteString(c.w, "mayfly-init: "+line+"\n")
}

// refusal is why the machine does not go on.
type refusal struct {
	code   string
	detail error
}

func (r *refusal) Error() string { return r.code + ": " + r.detail.Error() }
func (r *refusal) Unwrap() error { return r.detail }

func refuse(code, format string, args ...any) error {
	return &refusal{code: code, detail: fmt.Errorf(format, args...)}
}

// Reason codes of refusals. Those of tickets, bundles and the join port come from their packages.
const (
	codeMounts     = "mounts_failed"
	codeModules    = "modules_failed"
	codeLockdown   = "lockdown_failed"
	codeDisk       = "disk_present"
	codeNotUnbound = "disk_not_unbound"
	codeSwap       = "swap_active"
	codeClock      = "clock_before_build"
	codePapers     = "papers_missing"
	codeRelease    = "release_differs"
	codeNetwork    = "network_failed"
	codeFirewall   = "firewall_failed"
	codeKeys       = "keys_failed"
	codeJoin       = "join_failed"
	codeAlgorithms = "algorithms_unknown"
	codeServer     = "server_not_in_policy"
	codeServices   = "services_failed"
	codeUnexpected = "unexpected"
	codeNoTPM      = "tpm_missing" // the ticket asks for a TPM, and the machine has none
	codeTPM        = "tpm_failed"

	// The kernel is more open than the release says.
	codeNoLockdown  = "hardening_lockdown"
	codeHibernation = "hardening_hibernation"
	codeKexec       = "hardening_kexec"
	codePstore      = "hardening_pstore"
	codeModuleSigs  = "hardening_modules"
	codeMount       = "hardening_mount"
	codeCmdline     = "hardening_cmdline"
	codeProbing     = "hardening_probing"
)
