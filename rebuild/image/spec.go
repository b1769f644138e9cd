package image

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"

	"github.com/pelletier/go-toml/v2"

	"mayfly/internal/hint"
)

//go:embed image.toml
var defaultSpec []byte

// Spec says what an image is made of: image.toml.
type Spec struct {
	Kernel   string   `toml:"kernel"`
	Packages []string `toml:"packages"`
	Exclude  []string `toml:"exclude"`
	Root     Root     `toml:"root"`
	Modules  Modules  `toml:"modules"`

	digest string // SHA-256 of the file, hex
}

// Root says what goes into root.erofs.
type Root struct {
	Programs    []string    `toml:"programs"`
	Libraries   []string    `toml:"libraries"`
	Files       []string    `toml:"files"`
	Directories []Directory `toml:"directories"`
	Applets     []string    `toml:"applets"`
	Accounts    []Account   `toml:"account"`
}

// Directory is an empty one.
type Directory struct {
	Path string `toml:"path"`
	Mode uint32 `toml:"mode"`
}

// Account is a user and the group of the same name and number. None has a password or a shell.
type Account struct {
	Name string `toml:"name"`
	ID   uint32 `toml:"id"`
	Home string `toml:"home"`
}

// Modules are kernel modules by name.
type Modules struct {
	Stub []string `toml:"stub"`
	Init []string `toml:"init"`
}

// Bounds of a spec.
const (
	maxSpec  = 64 << 10
	maxNames = 1000
	maxID    = 65534
)

var (
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,99}$`)
	moduleName  = regexp.MustCompile(`^[A-Za-z0-9_]{1,60}$`)
	appletName  = regexp.MustCompile(`^(\[|[a-z0-9]{1,30})$`)
	libraryName = regexp.MustCompile(`^[A-Za-z0-9_.+-]{1,80}$`)
	accountName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
)

// Default is the spec that is part of this program.
func Default() Spec {
	spec, err := ParseSpec("image.toml", defaultSpec)
	if err != nil {
		panic("image: internal error: " + err.Error())
	}
	return spec
}

// Digest is the SHA-256 of the file that the spec was read from, hex.
func (s Spec) Digest() string { return s.digest }

// ParseSpec reads a spec strictly. Errors begin with "NAME:LINE:" where the line is known.
func ParseSpec(name string, data []byte) (Spec, error) {
	var s Spec
	if len(data) > maxSpec {
		return Spec{}, fmt.Errorf("%s: longer than %d bytes", name, maxSpec)
	}
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
			first := &strict.Errors[0]
			line, _ := first.Position()
			return Spec{}, hint.New(fmt.Errorf("%s:%d: unknown key %q", name, line, first.Key()), "docs/formats/image-lock.md lists the keys")
		}
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ := at.Position()
			return Spec{}, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		return Spec{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := s.check(); err != nil {
		return Spec{}, fmt.Errorf("%s: %w", name, err)
	}
	sum := sha256.Sum256(data)
	s.digest = hex.EncodeToString(sum[:])
	return s, nil
}

func (s Spec) check() error {
	if !packageName.MatchString(s.Kernel) {
		return fmt.Errorf("kernel: bad package name %q", s.Kernel)
	}
	lists := []struct {
		key   string
		names []string
		ok    func(string) bool
	}{
		{"packages", s.Packages, packageName.MatchString},
		{"exclude", s.Exclude, packageName.MatchString},
		{"root.programs", s.Root.Programs, cleanAbsolute},
		{"root.libraries", s.Root.Libraries, libraryName.MatchString},
		{"root.files", s.Root.Files, cleanAbsolute},
		{"root.applets", s.Root.Applets, appletName.MatchString},
		{"modules.stub", s.Modules.Stub, moduleName.MatchString},
		{"modules.init", s.Modules.Init, moduleName.MatchString},
	}
	for _, l := range lists {
		if err := checkNames(l.key, l.names, l.ok); err != nil {
			return err
		}
	}
	var dirs, names, ids []string
	for _, d := range s.Root.Directories {
		if d.Mode&^0o1777 != 0 {
			return fmt.Errorf("root.directories: %s: mode %#o may hold permissions and the sticky bit only", d.Path, d.Mode)
		}
		dirs = append(dirs, d.Path)
	}
	for _, a := range s.Root.Accounts {
		if a.ID > maxID || !cleanAbsolute(a.Home) {
			return fmt.Errorf("root.account: %s: bad id %d or home %q", a.Name, a.ID, a.Home)
		}
		names, ids = append(names, a.Name), append(ids, fmt.Sprint(a.ID))
	}
	return errors.Join(checkNames("root.directories", dirs, cleanAbsolute), checkNames("root.account", names, accountName.MatchString),
		checkNames("root.account ids", ids, func(string) bool { return true }))
}

func checkNames(key string, names []string, ok func(string) bool) error {
	if len(names) > maxNames {
		return fmt.Errorf("%s: more than %d entries", key, maxNames)
	}
	for i, n := range names {
		if !ok(n) {
			return fmt.Errorf("%s: bad entry %q", key, n)
		}
		if slices.Contains(names[:i], n) {
			return fmt.Errorf("%s: %q is listed twice", key, n)
		}
	}
	return nil
}

// cleanAbsolute accepts paths as they are in a merged-usr root.
func cleanAbsolute(p string) bool {
	return len(p) > 1 && len(p) < 200 && path.IsAbs(p) && path.Clean(p) == p && mergeUsr(p) == p
}
