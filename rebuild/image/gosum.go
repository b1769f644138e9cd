package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/dirhash"

	"mayfly/internal/hint"
)

const modulesHint = "in the source tree: `go clean -modcache`, then `go mod download`"

// checkModules compares all that the packages take from other modules with go.sum. Go does that when it downloads a module, and never again;
// `go mod verify` compares with a file of the module cache, and needs modules that nothing is built from.
func checkModules(ctx context.Context, moduleDir string, packages []string) error {
	if _, err := os.Lstat(filepath.Join(moduleDir, "go.mod")); err != nil { // go would take one further up
		return hint.New(fmt.Errorf("looking for the module: %w", err), "give the directory of mayfly's source tree")
	}
	const form = `{{with .Module}}{{if not .Main}}{{.Path}}{{"\t"}}{{.Version}}{{"\t"}}{{.Dir}}{{"\t"}}{{if .Replace}}replaced{{end}}{{end}}{{end}}`
	text, err := runGo(ctx, moduleDir, append([]string{"list", "-deps", "-f", form}, packages...)...)
	if err != nil {
		return hint.New(fmt.Errorf("listing modules: %w", err), "modules are not fetched here; `go mod download` in the source tree brings them")
	}
	var sums map[string]string
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if line == "" || seen[line] {
			continue
		}
		seen[line] = true
		if sums == nil {
			if sums, err = readSums(filepath.Join(moduleDir, "go.sum")); err != nil {
				return err
			}
		}
		f := strings.Split(line, "\t")
		if len(f) != 4 {
			return fmt.Errorf("listing modules: %q is no line of `go list`", line)
		}
		name, dir := f[0]+"@"+f[1], f[2]
		if f[3] != "" {
			return hint.New(fmt.Errorf("module %s is replaced: go.sum cannot vouch for it", name), "leave `replace` out of go.mod")
		}
		if dir == "" {
			return hint.New(fmt.Errorf("module %s is not there", name), "%s", modulesHint)
		}
		got, err := dirhash.HashDir(dir, name, dirhash.Hash1)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		if want, ok := sums[name]; !ok || got != want {
			return hint.New(fmt.Errorf("module %s in %s is not the one of go.sum: somebody changed it", name, dir), "see what differs, and since when; then, %s", modulesHint)
		}
	}
	return nil
}

// readSums reads the modules' lines of a go.sum.
func readSums(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, errors.New("go.sum: a line without module, version and hash")
		}
		if name := f[0] + "@" + f[1]; strings.HasPrefix(f[2], "h1:") && !strings.HasSuffix(f[1], "/go.mod") {
			if was, ok := sums[name]; ok && was != f[2] {
				return nil, fmt.Errorf("go.sum: two hashes of %s", name)
			}
			sums[name] = f[2]
		}
	}
	return sums, nil
}
