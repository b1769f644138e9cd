package image

import (
	"bytes"
	"debug/elf"
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
	tree    tree
}

func newKernelModules(t tree) (kernelModules, error) {
	k := kernelModules{files: map[string]string{}, builtin: map[string]bool{}, tree: t}
	for _, p := range t.under(moduleRoot) {
		switch {
		case path.Base(p) == "modules.builtin":
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
		needs, err := moduleNeeds(k.tree[file].data)
		if err != nil {
			return fmt.Errorf("kernel module %s: %w", file, err)
		}
		for _, need := range needs {
			if err := visit(need, append(trail, name)); err != nil {
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

// moduleNeeds reads "depends" from a module's .modinfo section.
func moduleNeeds(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(line, "depends="); ok {
			return strings.FieldsFunc(list, func(r rune) bool { return r == ',' }), nil
		}
	}
	return nil, nil
}
