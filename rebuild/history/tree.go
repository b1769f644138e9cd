package history

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Specification: the modes that a tree's entry may have (git's tree format).
const (
	modeFile      = "100644"
	modeProgram   = "100755"
	modeLink      = "120000"
	modeTree      = "40000"
	modeSubmodule = "160000"
)

// Implementation limits.
const (
	maxDepth   = 256       // directories in directories
	maxEntries = 2_000_000 // in one tree, with all below it
	keptTrees  = 200_000   // that are remembered
)

// entry is what stands in a tree. Its path is its name, or, of what was listed with all below, the way to it.
type entry struct{ mode, id, path string }

// parseTree reads a tree object strictly: entries in git's order, each name once, and none that could be taken for something else.
func parseTree(data []byte, idBytes int) (all []entry, err error) {
	last := ""
	for len(data) > 0 {
		head, rest, ok := bytes.Cut(data, []byte{0})
		mode, name, spaced := strings.Cut(string(head), " ")
		if !ok || !spaced || len(rest) < idBytes {
			return nil, errors.New("a tree that ends in an entry")
		}
		e := entry{mode, hex.EncodeToString(rest[:idBytes]), name}
		data = rest[idBytes:]
		switch mode {
		case modeFile, modeProgram, modeLink, modeTree:
		case modeSubmodule:
			return nil, fmt.Errorf("%q is a submodule, whose content is not the commit's", name)
		default:
			return nil, fmt.Errorf("%q has mode %q", name, mode)
		}
		if name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.Contains(name, "/") {
			return nil, fmt.Errorf("%q is no file's name", name)
		}
		if mode == modeTree {
			name += "/" // as git sorts them
		}
		if last != "" && name <= last {
			return nil, fmt.Errorf("%q is not in order", e.path)
		}
		last = name
		all = append(all, e)
	}
	names := map[string]bool{} // a file and a directory of one name are not neighbours
	for _, e := range all {
		if names[e.path] {
			return nil, fmt.Errorf("%q is there twice", e.path)
		}
		names[e.path] = true
	}
	return all, nil
}

// trees reads trees, and remembers those that it has read.
type trees struct {
	objects *objects
	read    map[string][]entry // by id
}

// tree returns one tree's own entries; of no id, none.
func (t *trees) tree(id string) ([]entry, error) {
	if id == "" {
		return nil, nil
	}
	if all, ok := t.read[id]; ok {
		return all, nil
	}
	data, err := t.objects.content(id, "tree", maxTree)
	if err != nil {
		return nil, err
	}
	all, err := parseTree(data, len(id)/2)
	if err != nil {
		return nil, refuse(NotAFile, "", "tree %s: %v", short(id), err)
	}
	if len(t.read) >= keptTrees {
		clear(t.read)
	}
	t.read[id] = all
	return all, nil
}

// list returns the files of a tree and of all below it, in the order of git's listing.
func (t *trees) list(id string) ([]entry, error) {
	var all []entry
	err := t.walk(id, "", 0, func(e entry) error {
		if all = append(all, e); len(all) > maxEntries {
			return refuse(NotAFile, "", "tree %s has more than %d files", short(id), maxEntries)
		}
		return nil
	})
	return all, err
}

func (t *trees) walk(id, prefix string, depth int, use func(entry) error) error {
	if depth > maxDepth {
		return refuse(NotAFile, "", "directories are nested more than %d deep", maxDepth)
	}
	entries, err := t.tree(id)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := prefix + e.path
		if e.mode == modeTree {
			err = t.walk(e.id, path+"/", depth+1, use)
		} else {
			err = use(entry{e.mode, e.id, path})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// changed tells use each path that two trees do not have alike. A file that was renamed is one that went and one that came.
func (t *trees) changed(old, now, prefix string, depth int, use func(path string)) error {
	if old == now {
		return nil
	}
	if depth > maxDepth {
		return refuse(NotAFile, "", "directories are nested more than %d deep", maxDepth)
	}
	var sides [2]map[string]entry
	for i, id := range []string{old, now} {
		entries, err := t.tree(id)
		if err != nil {
			return err
		}
		sides[i] = map[string]entry{}
		for _, e := range entries {
			sides[i][e.path] = e
		}
	}
	names := slices.Sorted(maps.Keys(sides[0]))
	for name := range sides[1] {
		if _, both := sides[0][name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		a, b := sides[0][name], sides[1][name]
		if a == b {
			continue
		}
		var below [2]string
		file := false
		for i, e := range []entry{a, b} {
			if e.mode == modeTree {
				below[i] = e.id
			} else if e.mode != "" {
				file = true
			}
		}
		if file {
			use(prefix + name)
		}
		if err := t.changed(below[0], below[1], prefix+name+"/", depth+1, use); err != nil {
			return err
		}
	}
	return nil
}
