package image

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
)

//go:embed image.toml
var defaultSpec []byte

// Spec says what an image is made of: image.toml. It is the profile "cloud"; Profile gives another.
type Spec struct {
	Kernel   string             `toml:"kernel"`
	Packages []string           `toml:"packages"`
	Optional []string           `toml:"optional"` // taken where the archive has them
	Exclude  []string           `toml:"exclude"`
	EFIStub  string             `toml:"efi_stub"`
	Root     Root               `toml:"root"`
	Modules  Modules            `toml:"modules"`
	Profiles map[string]Profile `toml:"profile"`

	digest  string // SHA-256 of the file, hex
	profile string // "" is DefaultProfile
}

// Profile says in what an image for other machines differs: its kernel, and what comes on top.
type Profile struct {
	Kernel   string   `toml:"kernel"`
	Packages []string `toml:"packages"`
	Optional []string `toml:"optional"`
	Exclude  []string `toml:"exclude"`
	Modules  Modules  `toml:"modules"`
}

// DefaultProfile is what a spec says outside its profile tables.
const DefaultProfile = "cloud"

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
	profileName = regexp.MustCompile(`^[a-z]{1,20}$`)
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

// Profile is the spec for one kind of machines.
func (s Spec) Profile(name string) (Spec, error) {
	if name == DefaultProfile {
		s.profile = ""
		return s, nil
	}
	p, ok := s.Profiles[name]
	if !ok {
		return Spec{}, hint.New(fmt.Errorf("image.toml has no profile %q", name), "there are: %s", strings.Join(s.ProfileNames(), ", "))
	}
	s.profile = name
	if p.Kernel != "" {
		s.Kernel = p.Kernel
	}
	s.Packages = slices.Concat(s.Packages, p.Packages)
	s.Optional = slices.Concat(s.Optional, p.Optional)
	s.Exclude = slices.Concat(s.Exclude, p.Exclude)
	s.Modules.Stub = slices.Concat(p.Modules.Stub, s.Modules.Stub)
	s.Modules.Init = slices.Concat(p.Modules.Init, s.Modules.Init)
	return s, nil
}

// ProfileNames lists the profiles.
func (s Spec) ProfileNames() []string {
	return append([]string{DefaultProfile}, slices.Sorted(maps.Keys(s.Profiles))...)
}

func (s Spec) profileName() string {
	if s.profile == "" {
		return DefaultProfile
	}
	return s.profile
}

// Digest is the SHA-256 of the file that the spec was read from, hex.
func (s Spec) Digest() string { return s.digest }

// ParseSpec reads a spec strictly. Errors begin with "NAME:LINE:" where the line is known.
func ParseSpec(name string, data []byte) (Spec, error) {
	var s Spec
	if len(data) > maxSpec {
		return Spec{}, hint.New(fmt.Errorf("%s: longer than %d bytes", name, maxSpec), "this is not an image.toml; docs/formats/image-lock.md describes it")
	}
	doc, err := tomlfile.Decode(name, data, &s)
	if err != nil {
		return Spec{}, err
	}
	if err := s.check(); err != nil {
		return Spec{}, doc.Place(err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Profiles)) {
		if !profileName.MatchString(name) || name == DefaultProfile {
			return Spec{}, doc.Place(tomlfile.At("profile."+name, "a name of lower-case letters; what is outside of profiles is \"cloud\"", "bad profile %q", name))
		}
		p, err := s.Profile(name)
		if err != nil {
			return Spec{}, err
		}
		if err := p.checkLists(); err != nil {
			return Spec{}, doc.Place(tomlfile.At("profile."+name, "a profile lists only what comes on top", "%v", err))
		}
	}
	sum := sha256.Sum256(data)
	s.digest = hex.EncodeToString(sum[:])
	return s, nil
}

func (s Spec) check() error {
	if s.EFIStub != "" && !cleanAbsolute(s.EFIStub) {
		return tomlfile.At("efi_stub", "for example efi_stub = \"/usr/lib/systemd/boot/efi/linuxx64.efi.stub\"", "bad path %q", s.EFIStub)
	}
	if err := s.checkLists(); err != nil {
		return err
	}
	return s.checkRoot()
}

func (s Spec) checkLists() error {
	if !packageName.MatchString(s.Kernel) {
		return tomlfile.At("kernel", "for example kernel = \"linux-image-cloud-amd64\"", "bad package name %q", s.Kernel)
	}
	lists := []struct {
		key   string
		names []string
		ok    func(string) bool
	}{
		{"packages", s.Packages, packageName.MatchString},
		{"optional", s.Optional, packageName.MatchString},
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
	return nil
}

func (s Spec) checkRoot() error {
	var dirs, names, ids []string
	for _, d := range s.Root.Directories {
		if d.Mode&^0o1777 != 0 {
			return tomlfile.At("root.directories", "for example mode = 0o755", "%s: mode %#o may hold permissions and the sticky bit only", d.Path, d.Mode)
		}
		dirs = append(dirs, d.Path)
	}
	for _, a := range s.Root.Accounts {
		if a.ID > maxID || !cleanAbsolute(a.Home) {
			return tomlfile.At("root.account", fmt.Sprintf("id is at most %d, home a path like \"/run/name\"", maxID), "%s: bad id %d or home %q", a.Name, a.ID, a.Home)
		}
		names, ids = append(names, a.Name), append(ids, fmt.Sprint(a.ID))
	}
	if err := checkNames("root.directories", dirs, cleanAbsolute); err != nil {
		return err
	}
	if err := checkNames("root.account", names, accountName.MatchString); err != nil {
		return err
	}
	return checkNames("root.account", ids, func(string) bool { return true })
}

func checkNames(key string, names []string, ok func(string) bool) error {
	if len(names) > maxNames {
		return tomlfile.At(key, "an image holds few things: remove what no program needs", "more than %d entries", maxNames)
	}
	for i, n := range names {
		if !ok(n) {
			return tomlfile.At(fmt.Sprintf("%s[%d]", key, i), "docs/formats/image-lock.md says what "+key+" may hold", "bad entry %q", n)
		}
		if slices.Contains(names[:i], n) {
			return tomlfile.At(fmt.Sprintf("%s[%d]", key, i), "each entry once", "%q is listed twice", n)
		}
	}
	return nil
}

// cleanAbsolute accepts paths as they are in a merged-usr root.
func cleanAbsolute(p string) bool {
	return len(p) > 1 && len(p) < 200 && path.IsAbs(p) && path.Clean(p) == p && mergeUsr(p) == p
}
