package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"

	"mayfly/rebuild/cpio"
)

// choice is what an image takes from its packages. Our own programs are not yet in it.
type choice struct {
	kernel  []byte
	uname   string // the kernel's release
	efiStub []byte
	stub    tree
	root    tree
	taken   map[string][]string // by package: the paths that the image takes, sorted
	lacking []string            // "MODULE: FILE" for firmware that no package holds
}

// choose picks what the spec names from the packages' files.
func (s Spec) choose(p files) (choice, error) {
	modules, err := newKernelModules(p.tree)
	if err != nil {
		return choice{}, err
	}
	stubModules, err := modules.order(s.Modules.Stub, nil)
	if err != nil {
		return choice{}, err
	}
	initModules, err := modules.order(s.Modules.Init, stubModules)
	if err != nil {
		return choice{}, err
	}
	c := choice{taken: map[string][]string{}}
	if c.root, err = layRoot(s, p.tree, initModules); err != nil {
		return choice{}, err
	}
	if c.stub, c.lacking, err = layStub(p.tree, stubModules); err != nil {
		return choice{}, err
	}
	kernelAt, err := c.takeKernel(p.tree)
	if err != nil {
		return choice{}, err
	}
	paths := slices.Concat(c.root.paths(), c.stub.paths(), modules.lists, []string{kernelAt})
	if s.EFIStub != "" {
		n := p.tree[s.EFIStub]
		if n == nil || !n.mode.IsRegular() {
			return choice{}, fmt.Errorf("%s: no package of the lock holds it", s.EFIStub)
		}
		c.efiStub = n.data
		paths = append(paths, s.EFIStub)
	}
	slices.Sort(paths)
	for _, at := range slices.Compact(paths) {
		if n := p.tree[at]; n != nil && !n.mode.IsDir() {
			c.taken[p.from[at]] = append(c.taken[p.from[at]], at)
		}
	}
	return c, nil
}

// takeKernel takes the kernel, and tells where it was.
func (c *choice) takeKernel(packages tree) (at string, err error) {
	const dir, prefix = "/boot", "/boot/vmlinuz-"
	for _, p := range packages.under(dir) {
		if uname, ok := strings.CutPrefix(p, prefix); ok {
			c.kernel, c.uname = packages[p].data, uname
			return p, nil
		}
	}
	return "", errors.New("no package of the lock holds a kernel")
}

// archive is what the image takes from one package, in the one form that the lock file hashes.
func archive(packages tree, taken []string) ([]byte, error) {
	var out []cpio.File
	for _, at := range taken {
		n := packages[at]
		out = append(out, cpio.File{Path: strings.TrimPrefix(at, "/"), Mode: n.mode, Data: n.payload()})
	}
	var b bytes.Buffer
	err := cpio.Write(&b, out)
	return b.Bytes(), err
}

// readArchive reads back what archive wrote.
func readArchive(data []byte) (tree, error) {
	in, rest, err := cpio.Read(data)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("more than one archive")
	}
	out := tree{}
	for _, f := range in {
		at := "/" + f.Path
		switch f.Mode.Type() {
		case 0:
			out[at] = &node{mode: f.Mode, data: f.Data}
		case fs.ModeSymlink:
			out[at] = &node{mode: f.Mode, link: string(f.Data)}
		default:
			return nil, fmt.Errorf("%s: neither a file nor a link", at)
		}
	}
	return out, nil
}

// same tells whether two choices give the same image.
func (c choice) same(o choice) bool {
	return reflect.DeepEqual(c, o)
}
