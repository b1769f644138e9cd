package policies

import (
	"fmt"
	"slices"
	"strings"

	"mayfly/internal/tomlfile"
)

// History is what the history of the source has to keep that images are built from (rebuild/history). It is not asked for where From is empty.
type History struct {
	From string   `toml:"from" json:"from"` // id of the commit that is believed: every later one has to be signed and approved
	Deep []string `toml:"deep" json:"deep"` // paths that two others approve
}

// Bounds of [history].
const (
	maxDeepPaths = 256
	maxDeepPath  = 512 // bytes
)

// On reports whether a history is asked for.
func (h History) On() bool { return h.From != "" }

func (p Policy) checkHistory() error {
	h := p.History
	if h.From == "" {
		if len(h.Deep) > 0 {
			return tomlfile.At("history.deep", `from = "COMMIT": the commit that is believed`, "history.deep without history.from")
		}
		return nil
	}
	if (len(h.From) != 40 && len(h.From) != 64) || strings.Trim(h.From, "0123456789abcdef") != "" {
		return tomlfile.At("history.from", "`git rev-parse HEAD` prints one", "history.from %q is no whole id of a commit", h.From)
	}
	if len(h.Deep) > maxDeepPaths {
		return tomlfile.At("history.deep", "name directories", "%d deep paths: at most %d", len(h.Deep), maxDeepPaths)
	}
	for i, path := range h.Deep {
		at := fmt.Sprintf("history.deep[%d]", i)
		if path == "" || len(path) > maxDeepPath || path[0] == '/' || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) ||
			strings.Contains("/"+path+"/", "/../") || strings.Contains("/"+path+"/", "/./") || strings.Contains(path, "//") {
			return tomlfile.At(at, `"policies/" is a directory, "go.mod" a file, both from the top`, "deep path %q", path)
		}
		if slices.Contains(h.Deep[:i], path) {
			return tomlfile.At(at, "each once", "deep path %q is there twice", path)
		}
	}
	return nil
}

// SignersOfChanges are the engineers' keys that count now, with the name of each: whose evidence is accepted and which nobody has revoked.
func (p Policy) SignersOfChanges() map[string]string {
	people := map[string]string{}
	for _, e := range p.Engineers {
		for _, k := range e.Keys {
			if p.accept(e.Name, k).Allow {
				people[k.Public] = e.Name
			}
		}
	}
	return people
}
