package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
)

const (
	firstUID    = 2000
	maxAccounts = 4096
	tunnelUID   = 103 // mayfly-tunnel in the image
	etcDir      = runDir + "/etc"
	homeDir     = "/home"
)

// accounts are the engineers' Unix accounts of this life. A uid is given once and never again, so that what one engineer left
// is never another's; so the files only grow, and are extended in one write.
type accounts struct {
	names []string // names[i] has uid firstUID+i
}

func (a *accounts) uid(name string) (int, bool) {
	i := slices.Index(a.names, name)
	return firstUID + i, i >= 0
}

// add gives new names their uids and returns the lines that passwd, group and shadow grow by.
func (a *accounts) add(list []engineer) (passwd, group, shadow []byte, err error) {
	for _, e := range list {
		if _, ok := a.uid(e.name); ok {
			continue
		}
		if len(a.names) >= maxAccounts {
			return nil, nil, nil, fmt.Errorf("more than %d accounts in one life", maxAccounts)
		}
		a.names = append(a.names, e.name)
		uid, _ := a.uid(e.name)
		passwd = fmt.Appendf(passwd, "%s:x:%d:%d::%s/%s:/bin/sh\n", e.name, uid, uid, homeDir, e.name)
		group = fmt.Appendf(group, "%s:x:%d:\n", e.name, uid)
		shadow = fmt.Appendf(shadow, "%s:*:::::::\n", e.name) // no password, and not locked: sshd would refuse keys as well
	}
	return passwd, group, shadow, nil
}

// etcFiles are laid over the read-only root's.
var etcFiles = []struct {
	name string
	mode os.FileMode
}{{"passwd", 0o644}, {"group", 0o644}, {"shadow", 0o600}}

// overlayAccounts puts copies of the account files in RAM over the root's.
func overlayAccounts() error {
	for _, f := range etcFiles {
		data, err := os.ReadFile("/etc/" + f.name)
		if err != nil {
			return fmt.Errorf("copying the accounts: %w", err)
		}
		at := filepath.Join(etcDir, f.name)
		if err := durable.WriteFile(at, data, f.mode); err != nil {
			return fmt.Errorf("copying the accounts: %w", err)
		}
		if err := unix.Mount(at, "/etc/"+f.name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("laying %s over /etc: %w", at, err)
		}
	}
	return nil
}

// extendAccounts appends to the files in RAM; a reader sees the old file or the new one.
func extendAccounts(lines ...[]byte) error {
	for i, f := range etcFiles {
		if len(lines[i]) == 0 {
			continue
		}
		if err := appendTo(filepath.Join(etcDir, f.name), lines[i]); err != nil {
			return fmt.Errorf("adding accounts: %w", err)
		}
	}
	return nil
}

func appendTo(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}

// authorizedKeys is an engineer's file: from bastions only, a terminal and nothing else.
func authorizedKeys(e engineer, bastions []netip.Addr) []byte {
	var from []string
	for _, b := range bastions {
		from = append(from, b.String())
	}
	var out bytes.Buffer
	if len(from) == 0 {
		return nil
	}
	for _, k := range e.keys {
		fmt.Fprintf(&out, "from=\"%s\",restrict,pty %s %s\n", strings.Join(from, ","), k, e.name)
	}
	return out.Bytes()
}

// writeAuthorizedKeys makes dir hold exactly these files. Whoever is not granted loses the file before anybody gains one.
func writeAuthorizedKeys(dir string, files map[string][]byte) error {
	have, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("writing authorized keys: %w", err)
	}
	for _, f := range have {
		if len(files[f.Name()]) > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return fmt.Errorf("removing authorized keys: %w", err)
		}
	}
	for name, data := range files {
		if len(data) == 0 {
			continue
		}
		if err := durable.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("writing authorized keys: %w", err)
		}
	}
	return nil
}
