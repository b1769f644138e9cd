package mutate

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func absolute(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestTable holds every entry to the source: the guard stands there once, what is left is Go, and the test that has to fail exists.
func TestTable(t *testing.T) {
	all, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	const least = 20
	if len(all) < least {
		t.Errorf("got %d mutations, want %d at least", len(all), least)
	}
	for _, m := range all {
		if _, err := m.Apply(root); err != nil {
			t.Error(err)
		}
		if _, err := m.Tests(root); err != nil {
			t.Error(err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := "[[mutation]]\nname = \"floor\"\nfile = \"a/b.go\"\nold = \"x\"\nnew = \"y\"\npackage = \"./a\"\ntest = \"TestX\"\nwhy = \"z\"\n"
	if all, err := Parse("t.toml", []byte(good), nil); err != nil || len(all) != 1 {
		t.Fatalf("got %v, %v, want one", all, err)
	}
	for _, test := range []struct{ name, from, to, want string }{
		{"nothing", good, "", "no [[mutation]]"},
		{"an unknown key", "why", "because", "t.toml:8"},
		{"no reason", `why = "z"`, `why = ""`, "say why"},
		{"no change", `new = "y"`, `new = "x"`, "changes nothing"},
		{"nothing to take out", `old = "x"`, `old = ""`, "changes nothing"},
		{"a test's file", "b.go", "b_test.go", "file"},
		{"a file elsewhere", "a/b.go", "../b.go", "file"},
		{"no Go", "b.go", "b.toml", "file"},
		{"a package elsewhere", `"./a"`, `"fmt"`, "package"},
		{"no expression", "TestX", "(", "test"},
		{"no test", `"TestX"`, `""`, "test"},
		{"a name", "floor", "The Floor", "name"},
		{"twice", good, good + good, "two mutations"},
	} {
		_, err := Parse("t.toml", []byte(strings.Replace(good, test.from, test.to, 1)), nil)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	if _, err := Parse("t.toml", []byte(good), []Mutation{{Name: "floor"}}); err == nil {
		t.Error("a name of another table: got nil, want an error")
	}
}

// TestRun: the run itself can tell caught from survived, and neither from what does not compile or runs no test.
func TestRun(t *testing.T) {
	quorum := Mutation{Name: "quorum", File: "policies/request/decide.go", Old: "if len(of) >= need {", New: "if len(of) > 0 {", Package: "./policies/request", Test: "^TestDecide$", Why: "x"}
	with := func(change func(*Mutation)) Mutation {
		m := quorum
		change(&m)
		return m
	}
	for _, test := range []struct {
		name string
		m    Mutation
		want string
		text string
	}{
		{"caught", quorum, Caught, "TestDecide"},
		{"survived", with(func(m *Mutation) { m.New = "if need <= len(of) {" }), Survived, ""},
		{"does not compile", with(func(m *Mutation) { m.New = "if len(off) > 0 {" }), Broken, "undefined: off"},
		{"no Go", with(func(m *Mutation) { m.New = "if {{" }), Broken, "no Go"},
		{"moved", with(func(m *Mutation) { m.Old = "if len(of) >= needed {" }), Broken, "0 times"},
		{"twice", with(func(m *Mutation) { m.Old = "return" }), Broken, "times"},
		{"no test", with(func(m *Mutation) { m.Test = "^TestNothing$" }), Broken, "no test ran"},
	} {
		t.Run(test.name, func(t *testing.T) {
			report, err := Run(t.Context(), Options{Root: absolute(t), Table: []Mutation{test.m}, Passing: true})
			if err != nil {
				t.Fatal(err)
			}
			r := report.Results[0]
			if r.Verdict != test.want || !strings.Contains(r.By+r.Detail, test.text) {
				t.Errorf("got %s, by %q, %q, want %s, %q", r.Verdict, r.By, r.Detail, test.want, test.text)
			}
			if (report.Bad() == nil) != (test.want == Caught) {
				t.Errorf("got %v for %s", report.Bad(), r.Verdict)
			}
		})
	}
	if _, err := Run(t.Context(), Options{Root: absolute(t), Table: []Mutation{with(func(m *Mutation) { m.Test = "^TestNothing$" })}}); err == nil {
		t.Error("tests that do not pass as the source is: got nil, want an error")
	}
}

// TestCaught runs the mutations that are fast. All of them: go run ./testenv mutate.
func TestCaught(t *testing.T) {
	all, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	fast := slices.DeleteFunc(slices.Clone(all), func(m Mutation) bool { return !m.CI })
	report, err := Run(t.Context(), Options{Root: absolute(t), Table: fast, Passing: true}) // the tests' own run sees that they pass
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Bad(); err != nil {
		t.Error(err)
	}
	if report.Of < 8 || report.Caught != report.Of {
		t.Errorf("caught %d of %d", report.Caught, report.Of)
	}
	t.Logf("caught %d of %d in %.0f s; the table has %d", report.Caught, report.Of, report.Seconds, len(all))
}
