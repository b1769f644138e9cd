package image

import (
	"bytes"
	"debug/elf"
	"fmt"
	"path"
	"strings"
)

// libraryDirs is where the dynamic loader of Debian looks without a cache (ld.so(8)).
var libraryDirs = []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib"}

const elfMagic = "\x7fELF"

// copyPath copies a file and every symbolic link on the way to it.
func copyPath(dst, src tree, name string) (target string, err error) {
	chain, err := src.resolve(name)
	if err != nil {
		return "", err
	}
	for _, p := range chain {
		n := *src[p]
		dst.put(p, &n)
	}
	return chain[len(chain)-1], nil
}

// copyLibraries adds to dst what its programs need from src: the interpreter, and libraries by name. One that cannot be found is
// an error that names it and the file that needs it.
func copyLibraries(dst, src tree, byName []string) error {
	var todo []string
	for _, p := range dst.paths() {
		if isELF(dst[p]) {
			todo = append(todo, p)
		}
	}
	add := func(file, name string, candidates []string) error {
		for _, c := range candidates {
			if dst[c] != nil {
				return nil
			}
			if src[c] == nil {
				continue
			}
			target, err := copyPath(dst, src, c)
			if err != nil {
				return fmt.Errorf("%s needs %s: %w", file, name, err)
			}
			if !isELF(dst[target]) {
				return fmt.Errorf("%s needs %s: %s is no ELF file", file, name, target)
			}
			todo = append(todo, target)
			return nil
		}
		return fmt.Errorf("%s needs %s, which no package of the lock holds", file, name)
	}
	for _, name := range byName {
		if err := add("the spec", name, inLibraryDirs(name)); err != nil {
			return err
		}
	}
	for len(todo) > 0 {
		file := todo[0]
		todo = todo[1:]
		interpreter, libraries, err := elfNeeds(dst[file].data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if interpreter != "" {
			if err := add(file, interpreter, []string{mergeUsr(path.Clean(interpreter))}); err != nil {
				return err
			}
		}
		for _, name := range libraries {
			if err := add(file, name, inLibraryDirs(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func inLibraryDirs(name string) []string {
	var out []string
	for _, dir := range libraryDirs {
		out = append(out, path.Join(dir, name))
	}
	return out
}

func isELF(n *node) bool {
	return n != nil && n.mode.IsRegular() && strings.HasPrefix(string(n.data[:min(4, len(n.data))]), elfMagic)
}

// elfNeeds reads a program's interpreter and the libraries that it names. One with a search path of its own is refused: the
// check would not hold.
func elfNeeds(data []byte) (interpreter string, libraries []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return "", nil, err
	}
	if f.Machine != elf.EM_X86_64 {
		return "", nil, fmt.Errorf("is for %s", f.Machine)
	}
	if f.Type == elf.ET_REL { // a kernel module
		return "", nil, nil
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		if own, err := f.DynString(tag); err == nil && len(own) > 0 {
			return "", nil, fmt.Errorf("has a library path of its own, %q", own[0])
		}
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		raw := make([]byte, p.Filesz)
		if _, err := p.ReadAt(raw, 0); err != nil {
			return "", nil, err
		}
		interpreter = strings.TrimRight(string(raw), "\x00")
	}
	libraries, err = f.ImportedLibraries()
	return interpreter, libraries, err
}
