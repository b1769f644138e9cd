package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// moduleRoot is where Debian's kernel packages hold their modules, in a merged-usr root.
const moduleRoot = "/usr/lib/modules/"

// kernelModules knows the modules of one kernel. A package holds no modules.dep, depmod makes that at installation: what a module
// needs is read from the module itself.
type kernelModules struct {
	files   map[string]string // name → path
	builtin map[string]bool
	lists   []string // the files that say what is built in
	tree    tree
}

func newKernelModules(t tree) (kernelModules, error) {
	k := kernelModules{files: map[string]string{}, builtin: map[string]bool{}, tree: t}
	for _, p := range t.under(moduleRoot) {
		switch {
		case path.Base(p) == "modules.builtin":
			k.lists = append(k.lists, p)
			for line := range strings.Lines(string(t[p].data)) {
				k.builtin[moduleOf(strings.TrimSpace(line))] = true
			}
		case strings.HasSuffix(p, ".ko"):
			k.files[moduleOf(p)] = p
		}
	}
	if len(k.files) == 0 || len(k.builtin) == 0 {
		return k, fmt.Errorf("the kernel's package holds no modules below %s", moduleRoot)
	}
	return k, nil
}

// moduleOf is a module's name as the kernel knows it.
func moduleOf(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path.Base(file), ".ko"), "-", "_")
}

// order lists the modules' paths with all that they need, what is needed first. Those in have are left out.
func (k kernelModules) order(names, have []string) ([]string, error) {
	var out []string
	var visit func(name string, trail []string) error
	visit = func(name string, trail []string) error {
		name = moduleOf(name)
		file, ok := k.files[name]
		switch {
		case k.builtin[name] || slices.Contains(have, file) && ok || slices.Contains(out, file) && ok:
			return nil
		case !ok:
			return fmt.Errorf("kernel module %s: neither built in nor in the kernel's package", strings.Join(append(trail, name), " needs "))
		case slices.Contains(trail, name):
			return fmt.Errorf("kernel module %s: needs itself through %s", name, strings.Join(trail, ", "))
		}
		info, err := readModuleInfo(k.tree[file].data)
		if err != nil {
			return fmt.Errorf("kernel module %s: %w", file, err)
		}
		for _, need := range info.needs {
			if err := visit(need, append(trail, name)); err != nil {
				return err
			}
		}
		for _, first := range info.before {
			if k.files[moduleOf(first)] == "" || slices.Contains(trail, moduleOf(first)) {
				continue
			}
			if err := visit(first, append(trail, name)); err != nil {
				return err
			}
		}
		out = append(out, file)
		return nil
	}
	for _, name := range names {
		if err := visit(name, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// moduleInfo is what a module says of itself.
type moduleInfo struct {
	needs    []string // modules
	before   []string // modules, or names of what they offer, that are loaded first if there are such
	firmware []string // files below /lib/firmware that it may ask for
}

// readModuleInfo reads a module's .modinfo section.
func readModuleInfo(data []byte) (moduleInfo, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return moduleInfo{}, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return moduleInfo{}, errors.New("no .modinfo section")
	}
	text, err := section.Data()
	if err != nil {
		return moduleInfo{}, err
	}
	var info moduleInfo
	for line := range strings.SplitSeq(string(text), "\x00") {
		if list, ok := strings.CutPrefix(line, "depends="); ok {
			info.needs = strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
		}
		if list, ok := strings.CutPrefix(line, "softdep=pre:"); ok {
			list, _, _ = strings.Cut(list, "post:")
			info.before = append(info.before, strings.Fields(list)...)
		}
		if file, ok := strings.CutPrefix(line, "firmware="); ok {
			info.firmware = append(info.firmware, file)
		}
	}
	return info, nil
}

// firmwareRoot is where Debian's firmware packages hold their files, in a merged-usr root.
const firmwareRoot = "/usr/lib/firmware/"

// copyFirmware lays the files that modules may ask for, and tells which no package holds: many drivers do without.
func copyFirmware(dst, packages tree, modules []string) (lacking []string, err error) {
	for _, m := range modules {
		info, err := readModuleInfo(packages[m].data)
		if err != nil {
			return nil, fmt.Errorf("kernel module %s: %w", m, err)
		}
		for _, name := range info.firmware {
			at := path.Clean(firmwareRoot + name)
			if !strings.HasPrefix(at, firmwareRoot) {
				return nil, fmt.Errorf("kernel module %s: firmware %q", m, name)
			}
			if packages[packages.physical(at)] == nil {
				lacking = append(lacking, moduleOf(m)+": "+name)
				continue
			}
			if _, err := copyPath(dst, packages, at); err != nil {
				return nil, fmt.Errorf("kernel module %s: firmware %s: %w", m, name, err)
			}
		}
	}
	return lacking, nil
}
