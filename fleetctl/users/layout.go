package users

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mayfly/internal/account"
)

// place is a path of the state directory, and whose it is.
type place struct {
	path   string // may hold *
	owner  Role
	mode   fs.FileMode // that LayOut gives; 0: as it is
	never  fs.FileMode // bits that nobody may have
	group  bool        // its group is the one that signer and serve share
	needed bool
	below  bool // what lies in it is the same user's as well, and nobody else writes it
}

// Modes. In a shared directory everybody of the group makes files and nobody touches another's.
const (
	shared  = fs.ModeSticky | 0o775
	private = 0o077
	others  = 0o022
)

// places are the state directory (docs/manual.md#state-directory). What is not here is what people brought, and is believed for its signatures alone.
var places = []place{
	{path: ".", owner: Root, mode: shared, never: 0o002, group: true, needed: true},
	{path: File, owner: Root, mode: 0o644, never: others, needed: true},
	{path: "fleet.toml", owner: Root, never: others}, {path: "policy.toml", owner: Root, never: others},
	{path: "trust.json", owner: Root, mode: 0o644, never: others}, {path: "tls-ca.pem", owner: Root, mode: 0o644, never: others},
	{path: "bundle*.json", owner: Root, mode: 0o644, never: others}, {path: "bundle*.json.sig", owner: Root, mode: 0o644, never: others},

	{path: "signer", owner: Signer, mode: 0o700, never: private, needed: true, below: true},
	{path: "ssh-host-cas.json", owner: Signer, mode: 0o644, never: others}, {path: "operators-ca.pem", owner: Signer, mode: 0o644, never: others},

	{path: "store.db", owner: Serve, mode: 0o600, never: private}, {path: "store.db-*", owner: Serve, mode: 0o600, never: private},
	{path: "release", owner: Serve, mode: 0o644, never: others}, {path: "rotate.lock", owner: Serve, mode: 0o600, never: private},
	{path: "secrets.key", owner: Serve, mode: 0o600, never: private}, {path: "secrets", owner: Serve, mode: 0o700, never: private, below: true},
	{path: "offers", owner: Serve, mode: 0o700, never: private, below: true}, {path: "machines", owner: Serve, mode: 0o700, never: private, below: true},
	{path: "page", owner: Serve, mode: 0o700, never: private, below: true},
	{path: "power-plugins", owner: Root, never: others, below: true}, {path: "statements", owner: Serve, mode: 0o755, never: others},
	{path: "audit", owner: Serve, mode: 0o700, never: private, below: true}, {path: "orders", owner: Serve, mode: 0o700, never: private, below: true},
	{path: "public/page.pem", owner: Serve, mode: 0o644, never: others},

	{path: "public", owner: Root, mode: shared, never: 0o002, group: true, needed: true},
	{path: "public/client.json", owner: Root, mode: 0o644, never: others}, {path: "public/trust", owner: Root, mode: 0o755, never: others, below: true},
	{path: "public/known_hosts", owner: Signer, mode: 0o644, never: others},
	{path: "public/ledger", owner: Signer, mode: shared, never: 0o002, group: true, needed: true},
	{path: "public/ledger/journal", owner: Signer, mode: 0o700, never: private, below: true}, {path: "public/ledger/tile", owner: Signer, never: others, below: true},
	{path: "public/ledger/checkpoint", owner: Signer, mode: 0o644, never: others}, {path: "public/ledger/lock", owner: Signer, never: others},
	{path: "public/list.json", owner: Serve, mode: 0o644, never: others}, {path: "public/releases", owner: Root, mode: 0o755, never: others},
}

// Finding is something of the state directory that is not as it has to be.
type Finding struct {
	Path string `json:"path"`
	What string `json:"what"`
	Mend string `json:"mend"` // a command for root
}

func (f Finding) String() string { return f.Path + ": " + f.What }

// Check looks at everything that this process may look at. With one user it looks at the keys alone.
func (t Table) Check(dir string) ([]Finding, error) {
	if !t.Separate {
		return t.checkOne(dir)
	}
	var all []Finding
	err := t.each(dir, func(path string, p place, info fs.FileInfo) error {
		if info == nil {
			all = append(all, Finding{path, "is not there", "fleetctl doctor --fix --dir " + dir})
			return nil
		}
		all = append(all, t.look(path, p, info)...)
		return nil
	})
	return all, err
}

// checkOne looks at the keys of a directory that one user has for all.
func (t Table) checkOne(dir string) ([]Finding, error) {
	path := filepath.Join(dir, "signer")
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&private != 0 {
		return []Finding{{path, fmt.Sprintf("has mode %04o: others get at the keys", info.Mode().Perm()), "chmod 700 " + path}}, nil
	}
	return nil, nil
}

// look says what is wrong with one path.
func (t Table) look(path string, p place, info fs.FileInfo) (all []Finding) {
	add := func(mend, format string, args ...any) {
		all = append(all, Finding{path, fmt.Sprintf(format, args...), mend})
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	uid, known := t.UID(p.owner)
	switch {
	case !ok || !known:
		add("", "its owner cannot be told")
		return all
	case info.Mode()&fs.ModeSymlink != 0:
		add("rm "+path, "is a symbolic link")
		return all
	case int(stat.Uid) != uid:
		add(fmt.Sprintf("chown %s %s", account.Name(uid), path), "belongs to %s, not to %s (%s)", account.Name(int(stat.Uid)), account.Name(uid), p.owner)
	}
	never := p.never
	if p.group && int(stat.Gid) != t.Group {
		add(fmt.Sprintf("chgrp %d %s", t.Group, path), "its group is %d, not the one of signer and serve, %d", stat.Gid, t.Group)
	}
	if bad := info.Mode().Perm() & never; bad != 0 {
		add("fleetctl doctor --fix", "has mode %04o: others may do what nobody may", info.Mode().Perm())
	}
	if p.mode&fs.ModeSticky != 0 && info.Mode()&fs.ModeSticky == 0 {
		add("chmod +t "+path, "is not sticky: who may make files in it may take away another's")
	}
	return all
}

// each calls f for every path of the table that is there, and for what lies below where the table says so; with nil for a needed one that is not there.
// What this process may not look into is skipped: its owner looks.
func (t Table) each(dir string, f func(path string, p place, info fs.FileInfo) error) error {
	for _, p := range places {
		paths, err := filepath.Glob(filepath.Join(dir, p.path))
		if err != nil {
			return err
		}
		if len(paths) == 0 && p.needed {
			paths = []string{filepath.Join(dir, p.path)}
		}
		for _, path := range paths {
			info, err := os.Lstat(path)
			switch {
			case errors.Is(err, fs.ErrPermission):
				continue
			case errors.Is(err, fs.ErrNotExist):
				if !p.needed {
					continue
				}
				info = nil
			case err != nil:
				return err
			}
			if err := f(path, p, info); err != nil {
				return err
			}
			if info != nil && p.below && info.IsDir() {
				if err := below(path, p, f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// below is each for what lies in a directory.
func below(root string, p place, f func(path string, p place, info fs.FileInfo) error) error {
	inner := place{owner: p.owner, never: others}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case path == root || d.Type()&fs.ModeSocket != 0:
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 && !strings.Contains(root, "/signer") {
			return nil // a link is as good as what it leads to, which is believed for its hash
		}
		return f(path, inner, info)
	})
}
