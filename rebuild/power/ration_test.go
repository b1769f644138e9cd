package power

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRation: a burst, then one command a second, for all that share a BMC, in this process and the next.
func TestRation(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := newRation(dir, "192.0.2.111"), newRation(dir, "192.0.2.111")
		other := newRation(dir, "192.0.2.112")
		began := time.Now()
		for i := range rationBurst {
			r := a
			if i%2 == 1 {
				r = b
			}
			if err := r.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the burst took %s", took)
		}
		for range 3 {
			if err := newRation(dir, "192.0.2.111").take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 3*rationEvery-time.Millisecond || took > 4*rationEvery {
			t.Errorf("three more took %s", took)
		}
		// What would come too late fails at once, and takes nothing.
		short, cancel := context.WithTimeout(t.Context(), rationEvery/2)
		defer cancel()
		at := time.Now()
		if err := a.take(short); Reason(err) != Rationed || time.Since(at) != 0 {
			t.Errorf("got %v after %s", err, time.Since(at))
		}
		if err := other.take(t.Context()); err != nil || time.Since(at) != 0 {
			t.Errorf("another BMC waited: %v", err)
		}
		time.Sleep(time.Hour)
		at = time.Now()
		for range rationBurst {
			if err := a.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(at) != 0 {
			t.Error("an hour later there is no burst")
		}
	})
}

// TestRationDamaged: whoever damages the file has nothing of it, and nobody is kept out for ever.
func TestRationDamaged(t *testing.T) {
	for name, text := range map[string]string{
		"junk":       "junk",
		"cut":        "",
		"too many":   `{"tokens":1e9,"at":"2026-11-20T12:00:00Z"}`,
		"the future": `{"tokens":3,"at":"2999-11-20T12:00:00Z"}`,
		"debt":       `{"tokens":-1e9,"at":"2026-11-20T12:00:00Z"}`,
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			r := newRation(dir, "192.0.2.111")
			if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			at := time.Now()
			for range 2 {
				if err := r.take(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(at); took < rationEvery || took > 3*rationEvery {
				t.Errorf("%s: two commands took %s", name, took)
			}
		})
	}
}

// TestReasonsDocs: docs/manual.md says of every reason what helps.
func TestReasonsDocs(t *testing.T) {
	manual, err := os.ReadFile("../../docs/manual.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "failure.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			found++
			if !strings.Contains(string(manual), "`"+strings.Trim(lit.Value, `"`)+"`") {
				t.Errorf("docs/manual.md lacks %s", lit.Value)
			}
		}
		return true
	})
	if found < 25 {
		t.Errorf("%d reasons found", found)
	}
}
