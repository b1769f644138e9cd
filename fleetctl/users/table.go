package users

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
)

// File names the users, below the state directory. Specification.
const File = "users.toml"

// maxFile bounds it. Implementation.
const maxFile = 4 << 10

// Role is what a process is to the controller. The zero value may do nothing.
type Role string

// The roles.
const (
	Nobody  Role = ""
	Root    Role = "root"    // owns the machine: the directory, and what people bring into it
	Signer  Role = "signer"  // the keys
	Serve   Role = "serve"   // serve, rotate, and the verbs on the store
	Checkin Role = "checkin" // faces apps
)

// Config is DIR/users.toml: names, or numbers, of users, and of the group that the signer and serve share and checkin is not in.
type Config struct {
	Signer  string `toml:"signer"`
	Serve   string `toml:"serve"`
	Checkin string `toml:"checkin"`
	Group   string `toml:"group"`
}

// Default are the users of `fleetctl init --users`, where no users.toml says others.
var Default = Config{Signer: "mayfly-signer", Serve: "mayfly-serve", Checkin: "mayfly-checkin", Group: "mayfly"}

// Table is who is who on this machine.
type Table struct {
	Separate bool // false: one user for all, who may do all
	Group    int
	uid      map[Role]int
	self     int // with one user: who that is
}

// Load reads DIR/users.toml. It believes only a file that root alone can have written.
func Load(dir string) (Table, error) {
	path := filepath.Join(dir, File)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Table{self: os.Geteuid()}, nil
	}
	if err != nil {
		return Table{}, fmt.Errorf("loading the users: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 {
		return Table{}, hint.New(fmt.Errorf("loading the users: %s is not root's alone to write", path), "find out who wrote it; then: chown root %s; chmod 644 %s", path, path)
	}
	data, err := durable.ReadRegular(path, maxFile)
	if err != nil {
		return Table{}, fmt.Errorf("loading the users: %w", err)
	}
	c, err := Parse(path, data)
	if err != nil {
		return Table{}, err
	}
	return c.Resolve()
}

// Parse reads the form.
func Parse(name string, data []byte) (Config, error) {
	var c Config
	doc, err := tomlfile.Decode(name, data, &c)
	if err != nil {
		return Config{}, err
	}
	for _, k := range []struct{ key, value string }{{"signer", c.Signer}, {"serve", c.Serve}, {"checkin", c.Checkin}, {"group", c.Group}} {
		if k.value == "" {
			return Config{}, doc.Place(tomlfile.At(k.key, fmt.Sprintf("%s = \"mayfly-%s\"", k.key, k.key), "%s is not said: all four are, or there is no such file", k.key))
		}
	}
	return c, nil
}

// Resolve finds the users of these names on this machine.
func (c Config) Resolve() (Table, error) {
	t := Table{Separate: true, uid: map[Role]int{Root: 0}}
	seen := map[int]Role{0: Root}
	for _, r := range []struct {
		role Role
		name string
	}{{Signer, c.Signer}, {Serve, c.Serve}, {Checkin, c.Checkin}} {
		id, err := number(r.name, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", hint.New(err, "useradd --system --no-create-home --shell /usr/sbin/nologin %s", name)
			}
			return u.Uid, nil
		})
		if err != nil {
			return Table{}, fmt.Errorf("the user of %s: %w", r.role, err)
		}
		if other, twice := seen[id]; twice {
			return Table{}, hint.New(fmt.Errorf("%s and %s are one user, %s", other, r.role, r.name), "give each a user of its own, and none of them root")
		}
		seen[id], t.uid[r.role] = r.role, id
	}
	var err error
	t.Group, err = number(c.Group, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", hint.New(err, "groupadd --system %s", name)
		}
		return g.Gid, nil
	})
	if err == nil && t.Group == 0 {
		err = errors.New("it is root's")
	}
	if err != nil {
		return Table{}, fmt.Errorf("the group of signer and serve: %w", err)
	}
	return t, nil
}

// number is a name that is one already, or what the machine says of it.
func number(name string, lookup func(string) (string, error)) (int, error) {
	text := name
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	text, err := lookup(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err
}

// UID is the user of a role; ok is false where nobody has it.
func (t Table) UID(r Role) (uid int, ok bool) {
	uid, ok = t.uid[r]
	return uid, ok
}

// RoleOf is what a user is to the controller. With one user that one, and root, which could become it, is every one of them: serve's verbs and all others
// are open to it, as its directory is.
func (t Table) RoleOf(uid int) Role {
	if !t.Separate {
		if uid == t.self || uid == 0 {
			return Serve
		}
		return Nobody
	}
	for r, id := range t.uid {
		if id == uid {
			return r
		}
	}
	return Nobody
}
