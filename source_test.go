package mayfly_test

import (
	"bytes"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each package has exactly one package comment, which says its name.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		var found []string
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc == nil {
				continue
			}
			found = append(found, name)
			want := "Package " + p.Name + " "
			if p.Name == "main" {
				base := filepath.Base(p.ImportPath)
				want = strings.ToUpper(base[:1]) + base[1:] + " "
			}
			if text := f.Doc.Text(); !strings.HasPrefix(text, want) && !strings.HasPrefix(text, "Command "+filepath.Base(p.ImportPath)+" ") {
				t.Errorf("%s/%s: the package comment begins %.40q, want %q", p.ImportPath, name, text, want)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s: got package comments in %q, want exactly one", p.ImportPath, found)
		}
	}
}

// Every file is as gofmt writes it.
func TestFormat(t *testing.T) {
	for _, p := range packages(t) {
		for _, files := range [][]string{p.GoFiles, p.TestGoFiles, p.XTestGoFiles} {
			for _, name := range files {
				path := filepath.Join(p.Dir, name)
				got, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if want, err := format.Source(got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: not as gofmt writes it: %v", path, err)
				}
			}
		}
	}
}
