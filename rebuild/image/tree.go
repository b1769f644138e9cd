package image

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// tree is a file system in memory, by absolute clean path.
type tree map[string]*node

// node is one file, directory or symbolic link. Its owner is root.
type node struct {
	mode fs.FileMode
	data []byte
	link string
}

// payload is what a cpio archive holds of it: a file's content or a link's target.
func (n *node) payload() []byte {
	if n.mode.Type() == fs.ModeSymlink {
		return []byte(n.link)
	}
	return n.data
}

// maxLinks bounds how many symbolic links one path may lead through.
const maxLinks = 16

func (t tree) paths() []string { return slices.Sorted(maps.Keys(t)) }

// mkdir lays a directory and what leads to it.
func (t tree) mkdir(dir string, perm fs.FileMode) {
	if dir != "/" {
		if up := path.Dir(dir); t[up] == nil {
			t.mkdir(up, 0o755)
		}
	}
	t[dir] = &node{mode: fs.ModeDir | perm}
}

// put lays a node, with directories that lead to it.
func (t tree) put(name string, n *node) {
	if up := path.Dir(name); t[up] == nil {
		t.mkdir(up, 0o755)
	}
	t[name] = n
}

func (t tree) write(name string, perm fs.FileMode, data string) {
	t.put(name, &node{mode: perm, data: []byte(data)})
}

func (t tree) symlink(target, name string) {
	t.put(name, &node{mode: fs.ModeSymlink | 0o777, link: target})
}

// resolve follows symbolic links in every part of name, and returns all paths it went through: links, then the target.
func (t tree) resolve(name string) (chain []string, err error) {
	for range maxLinks {
		name = t.physical(name)
		n := t[name]
		if n == nil {
			return chain, fs.ErrNotExist
		}
		chain = append(chain, name)
		if n.mode.Type() != fs.ModeSymlink {
			return chain, nil
		}
		if path.IsAbs(n.link) {
			name = mergeUsr(path.Clean(n.link))
		} else {
			name = mergeUsr(path.Join(path.Dir(name), n.link))
		}
	}
	return chain, fmt.Errorf("%s: too many symbolic links", name)
}

// physical replaces the leading directories that are links in the tree itself.
func (t tree) physical(name string) string {
	for range maxLinks {
		changed := false
		for i := 1; i < len(name); i++ {
			if name[i] != '/' {
				continue
			}
			n := t[name[:i]]
			if n == nil || n.mode.Type() != fs.ModeSymlink {
				continue
			}
			target := n.link
			if !path.IsAbs(target) {
				target = path.Join(path.Dir(name[:i]), target)
			}
			name, changed = path.Join(target, name[i:]), true
			break
		}
		if !changed {
			return name
		}
	}
	return name
}

// under lists the paths below a directory.
func (t tree) under(dir string) []string {
	var out []string
	for _, p := range t.paths() {
		if strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") {
			out = append(out, p)
		}
	}
	return out
}
