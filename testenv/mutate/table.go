package mutate

import (
	"bytes"
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mayfly/internal/tomlfile"
)

//go:embed *.toml
var tables embed.FS

// Mutation is one guard, and what is left when it is gone.
type Mutation struct {
	Name    string `toml:"name"`
	File    string `toml:"file"` // below the module's root
	Old     string `toml:"old"`  // stands there exactly once
	New     string `toml:"new"`
	Package string `toml:"package"` // whose tests have to fail: "./inventory/store/sqlite"
	Test    string `toml:"test"`    // regular expression for go test -run; of a test's name, or of a part: "TestTickets/used"
	Why     string `toml:"why"`     // what the guard keeps
	CI      bool   `toml:"ci"`      // fast enough for every run of the tests: a few seconds with its compilation
}

type table struct {
	Mutation []Mutation `toml:"mutation"`
}

// Implementation constants.
const maxWhy = 200

var (
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{2,40}$`)
	testForm = regexp.MustCompile(`^Test[A-Za-z0-9_]*$`)
)

// Load reads the tables that are built in, in the order of their names.
func Load() ([]Mutation, error) {
	names, err := fs.Glob(tables, "*.toml")
	if err != nil {
		return nil, err
	}
	var all []Mutation
	for _, name := range names {
		data, err := tables.ReadFile(name)
		if err != nil {
			return nil, err
		}
		some, err := Parse(name, data, all)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// Parse reads one table strictly. others are the mutations of tables before it, whose names are taken.
func Parse(name string, data []byte, others []Mutation) ([]Mutation, error) {
	var t table
	doc, err := tomlfile.Decode(name, data, &t)
	if err != nil {
		return nil, err
	}
	if len(t.Mutation) == 0 {
		return nil, fmt.Errorf("%s: no [[mutation]]", name)
	}
	taken := map[string]bool{}
	for _, m := range others {
		taken[m.Name] = true
	}
	for i, m := range t.Mutation {
		if err := m.check(fmt.Sprintf("mutation[%d]", i), taken); err != nil {
			return nil, doc.Place(err)
		}
		taken[m.Name] = true
	}
	return t.Mutation, nil
}

func (m Mutation) check(at string, taken map[string]bool) error {
	switch {
	case !nameForm.MatchString(m.Name):
		return tomlfile.At(at+".name", "lower case and hyphens", "name %q", m.Name)
	case taken[m.Name]:
		return tomlfile.At(at+".name", "", "two mutations are called %q", m.Name)
	case !fs.ValidPath(m.File) || path.Ext(m.File) != ".go" || strings.HasSuffix(m.File, "_test.go"):
		return tomlfile.At(at+".file", "a Go file that is no test, below the module's root", "file %q", m.File)
	case m.Old == "" || m.Old == m.New:
		return tomlfile.At(at+".old", "", "mutation %s changes nothing", m.Name)
	case !strings.HasPrefix(m.Package, "./") || !fs.ValidPath(m.Package[2:]):
		return tomlfile.At(at+".package", `for example "./fleetctl/plan"`, "package %q", m.Package)
	case m.Why == "" || len(m.Why) > maxWhy:
		return tomlfile.At(at+".why", "", "mutation %s: say why, in %d bytes at most", m.Name, maxWhy)
	}
	if _, err := regexp.Compile(m.Test); m.Test == "" || err != nil {
		return tomlfile.At(at+".test", "", "test %q", m.Test)
	}
	return nil
}

// Apply is the file's content without the guard.
func (m Mutation) Apply(root string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(root, m.File))
	if err != nil {
		return nil, fmt.Errorf("mutation %s: %w", m.Name, err)
	}
	if n := bytes.Count(data, []byte(m.Old)); n != 1 {
		return nil, fmt.Errorf("mutation %s: the old text stands %d times in %s, want once: the guard moved, so its entry in testenv/mutate has to follow", m.Name, n, m.File)
	}
	changed := bytes.Replace(data, []byte(m.Old), []byte(m.New), 1)
	if _, err := parser.ParseFile(token.NewFileSet(), m.File, changed, parser.SkipObjectResolution); err != nil {
		return nil, fmt.Errorf("mutation %s: what is left is no Go: %w", m.Name, err)
	}
	return changed, nil
}

// Tests are the test functions of the mutation's package that its expression names; an error if there are none.
func (m Mutation) Tests(root string) ([]string, error) {
	top, _, _ := strings.Cut(m.Test, "/") // as go test reads it
	want, err := regexp.Compile(top)
	if err != nil {
		return nil, fmt.Errorf("mutation %s: %w", m.Name, err)
	}
	files, err := filepath.Glob(filepath.Join(root, m.Package, "*_test.go"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("mutation %s: %w", m.Name, err)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && testForm.MatchString(d.Name.Name) && want.MatchString(d.Name.Name) {
				found = append(found, d.Name.Name)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("mutation %s: %s has no test %q", m.Name, m.Package, m.Test)
	}
	slices.Sort(found)
	return found, nil
}
