package image

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"mayfly/internal/hint"
	"mayfly/rebuild/release"
)

// layRoot makes the root's tree from the packages' files. It is what Debian's maintainer scripts would have made, as far as a
// read-only root of a server needs it. Our own programs come on top (addPrograms): they are static, so nothing else depends on them.
func layRoot(spec Spec, packages tree, modules []string) (tree, error) {
	root := tree{}
	root.mkdir("/", 0o755)
	for _, dir := range mergedDirs {
		root.mkdir("/usr/"+dir, 0o755)
		root.symlink("usr/"+dir, "/"+dir)
	}
	for _, name := range spec.Root.Programs {
		target, err := copyPath(root, packages, name)
		if err != nil {
			return nil, fmt.Errorf("%s: no package of the lock holds it: %w", name, err)
		}
		if !isELF(root[target]) {
			return nil, fmt.Errorf("%s is no ELF program", name)
		}
	}
	for _, name := range spec.Root.Files {
		names := packages.under(name)
		if n := packages[name]; n != nil && !n.mode.IsDir() {
			names = []string{name}
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%s: no package of the lock holds it", name)
		}
		for _, p := range names {
			if packages[p].mode.IsDir() {
				continue
			}
			if _, err := copyPath(root, packages, p); err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	if err := copyLibraries(root, packages, spec.Root.Libraries); err != nil {
		return nil, err
	}
	for _, file := range modules {
		root.put(file, &node{mode: 0o644, data: packages[file].data})
	}
	if _, err := copyFirmware(root, packages, modules); err != nil {
		return nil, err
	}
	root.write(mergeUsr(release.ModulesPath), 0o644, moduleList(modules))
	layBusybox(root, spec.Root.Applets)
	layEtc(root, spec.Root.Accounts)
	for _, d := range spec.Root.Directories {
		mode := fs.FileMode(d.Mode) & 0o777
		if d.Mode&0o1000 != 0 {
			mode |= fs.ModeSticky
		}
		root.mkdir(d.Path, 0o755)
		root[d.Path].mode = fs.ModeDir | mode
	}
	root.readOnly()
	return root, nil
}

// readOnly takes from a root what none may hold.
func (t tree) readOnly() {
	for _, n := range t {
		if n.mode.IsRegular() { // nothing in a root is setuid, and nobody but root writes
			n.mode &= 0o755
		}
	}
}

// programPlaces is where our own programs lie in the root.
var programPlaces = map[string]string{"mayfly-init": release.InitPath, "tunnel": release.TunnelPath, "bastion": release.BastionPath}

// addPrograms lays our own programs.
func addPrograms(root tree, programs map[string][]byte) {
	for name, at := range programPlaces {
		if programs[name] != nil {
			root.put(mergeUsr(at), &node{mode: 0o755, data: programs[name]})
		}
	}
}

func moduleList(modules []string) string {
	var b strings.Builder
	for _, m := range modules {
		b.WriteString(m + "\n")
	}
	return b.String()
}

func layBusybox(root tree, applets []string) {
	for _, a := range applets {
		if at := "/usr/bin/" + a; root[at] == nil {
			root.symlink("busybox", at)
		}
	}
}

// layEtc writes the account files. No account has a password, and only accounts that mayfly-init adds for engineers have a shell.
func layEtc(root tree, accounts []Account) {
	var passwd, group, shadow strings.Builder
	for _, a := range accounts {
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:/bin/false\n", a.Name, a.ID, a.ID, a.Home)
		fmt.Fprintf(&group, "%s:x:%d:\n", a.Name, a.ID)
		fmt.Fprintf(&shadow, "%s:*:::::::\n", a.Name)
	}
	root.write("/etc/passwd", 0o644, passwd.String())
	root.write("/etc/group", 0o644, group.String())
	root.write("/etc/shadow", 0o600, shadow.String())
	root.write("/etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
	root.write("/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n")
	root.write("/etc/resolv.conf", 0o644, "# a server resolves no names for itself\n")
	root.write("/etc/os-release", 0o644, "NAME=mayfly\nID=mayfly\nPRETTY_NAME=\"mayfly server\"\n")
}

// checkUsed refuses packages that give nothing to the image: what is not needed is not locked, downloaded or reviewed.
func checkUsed(taken map[string][]string, packages []Package) error {
	for _, p := range packages {
		if len(taken[p.Name]) == 0 {
			return hint.New(fmt.Errorf("package %s gives no file to the image", p.Name), "add it to exclude in image.toml")
		}
	}
	return nil
}

// readPrograms reads our own programs, which have to be static.
func readPrograms(programs map[string]string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, file := range programs {
		if ourPrograms[name] == "" {
			return nil, fmt.Errorf("program %q has no place in the image", name)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		if !isELF(&node{data: data}) {
			return nil, fmt.Errorf("program %s: %s is no ELF file", name, file)
		}
		interpreter, libraries, err := elfNeeds(data)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		if interpreter != "" || len(libraries) > 0 {
			return nil, fmt.Errorf("program %s: %s is not static", name, file)
		}
		out[name] = data
	}
	return out, nil
}
