package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Rules is what a confined process may still do beside using what it has open. The zero value is nothing at all.
type Rules struct {
	Read    []string // directories, or files, that can be read
	Write   []string // directories in which files and directories can also be made, written, renamed and removed
	Remove  []string // directories in which files can be removed: those of sockets
	Connect []uint16 // TCP ports
	Filter  bool     // a classic filter can be put on its sockets
	Resolve bool     // names can be looked up, and certificates checked by the system's roots
}

// Files of a machine that name look-ups and certificate checks read, where there are any.
var resolverFiles = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/gai.conf",
	"/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/run/systemd/resolve",
}

// dnsPort is where names are looked up, over UDP and TCP.
const dnsPort = 53

// settled is the rules with every path resolved, each once.
func (r Rules) settled() (Rules, error) {
	var err error
	if r.Read, err = settle(r.Read); err != nil {
		return Rules{}, err
	}
	if r.Write, err = settle(r.Write); err != nil {
		return Rules{}, err
	}
	if r.Remove, err = settle(r.Remove); err != nil {
		return Rules{}, err
	}
	r.Connect = slices.Clone(r.Connect)
	if r.Resolve {
		r.Connect = append(r.Connect, dnsPort)
	}
	slices.Sort(r.Connect)
	r.Connect = slices.Compact(r.Connect)
	return r, nil
}

func settle(paths []string) ([]string, error) {
	var settled []string
	for _, p := range paths {
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return nil, fmt.Errorf("confining: %w", err)
		}
		if real == "/" {
			return nil, fmt.Errorf("confining: %s is the root of all files", p)
		}
		settled = append(settled, real)
	}
	slices.Sort(settled)
	return slices.Compact(settled), nil
}

// Beside is the directories that a file is read from: its own, and that of the file that it links to. A directory and not the file, so
// that a file which replaces it is found.
func Beside(path string) []string {
	dirs := []string{filepath.Dir(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	return dirs
}

// Apply confines the process. After an error it may be confined in part: the caller ends.
func Apply(rules Rules) (Report, error) {
	rules, err := rules.settled()
	if err != nil {
		return Report{}, err
	}
	settleTime()
	report := Probe(rules)
	for _, step := range []func() error{
		limitResources,
		func() error { return dropCapabilities(report.NoNetlink) },
		forbidNewPrivileges,
		func() error { return restrictFiles(rules) },
		func() error { return restrictCalls(rules, !report.NoNetlink) },
	} {
		if err := step(); err != nil {
			return Report{}, fmt.Errorf("confining: %w", err)
		}
	}
	return report, nil
}

// settleTime reads the machine's time zone, which the standard library does once, when it is first used.
func settleTime() { _ = time.Now().Local().String() }

// ErrIncomplete is wrapped by what Require returns.
var ErrIncomplete = errors.New("this kernel cannot enforce all of the sandbox")

// exists says whether there is such a file.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
