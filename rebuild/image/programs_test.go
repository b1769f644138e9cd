package image

import (
	"archive/zip"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeFiles makes files below a directory.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	goodMain = "package main\n\nfunc main() { println(\"GOOD\") }\n"
	evilMain = "package main\n\nfunc main() { println(\"EVIL\") }\n"
)

// says builds the program of a module and returns what it writes.
func says(t *testing.T, module string) string {
	t.Helper()
	programs, err := buildPrograms(t.Context(), module, t.TempDir(), map[string]string{"p": "."})
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command(programs["p"]).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return strings.TrimSpace(string(text))
}

// What is built is what the sources say, whatever Go's settings are: in the environment, or written by `go env -w`.
func TestProgramsSettings(t *testing.T) {
	goEnvCache(t)
	for _, in := range []string{"environment", "file"} {
		t.Run(in, func(t *testing.T) {
			module, other := t.TempDir(), t.TempDir()
			writeFiles(t, module, map[string]string{"go.mod": "module example.org/p\n\ngo 1.26\n", "main.go": goodMain})
			writeFiles(t, other, map[string]string{"evil.go": evilMain,
				"overlay.json": `{"Replace":{"` + filepath.Join(module, "main.go") + `":"` + filepath.Join(other, "evil.go") + `"}}`})
			flags := "-overlay=" + filepath.Join(other, "overlay.json")
			if in == "environment" {
				t.Setenv("GOFLAGS", flags)
				t.Setenv("GOEXPERIMENT", "nosuch")
			} else {
				t.Setenv("GOFLAGS", "")
				writeFiles(t, other, map[string]string{".config/go/env": "GOFLAGS=" + flags + "\nGOEXPERIMENT=nosuch\n"})
				t.Setenv("HOME", other)
				t.Setenv("XDG_CONFIG_HOME", filepath.Join(other, ".config"))
			}
			if got := says(t, module); got != "GOOD" {
				t.Errorf("the program says %q", got)
			}
		})
	}
}

// goEnvCache keeps Go's caches where they are, whatever else a test sets.
func goEnvCache(t *testing.T) {
	t.Helper()
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		t.Setenv(name, goEnv(t, name))
	}
}

// withModule makes a program whose words come from another module, downloaded from a proxy of files.
func withModule(t *testing.T) (module, cache string) {
	t.Helper()
	dir := t.TempDir()
	goEnvCache(t)
	module, cache = filepath.Join(dir, "p"), filepath.Join(dir, "cache")
	at := filepath.Join(dir, "proxy", "example.org", "words", "@v")
	const mod = "module example.org/words\n\ngo 1.26\n"
	writeFiles(t, at, map[string]string{"list": "v1.0.0\n", "v1.0.0.info": `{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}`, "v1.0.0.mod": mod})
	f, err := os.Create(filepath.Join(at, "v1.0.0.zip"))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, text := range map[string]string{"go.mod": mod, "words.go": "package words\n\nvar Word = \"GOOD\"\n"} {
		w, err := z.Create("example.org/words@v1.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, module, map[string]string{"go.mod": "module example.org/p\n\ngo 1.26\n\nrequire example.org/words v1.0.0\n",
		"main.go": "package main\n\nimport \"example.org/words\"\n\nfunc main() { println(words.Word) }\n"})
	t.Setenv("GOMODCACHE", cache)
	t.Setenv("GOPROXY", "file://"+filepath.Join(dir, "proxy"))
	t.Setenv("GONOSUMDB", "*")
	t.Setenv("GOFLAGS", "-modcacherw -mod=mod")
	tidy := exec.Command("go", "mod", "tidy")
	tidy.Dir = module
	if text, err := tidy.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return module, cache
}

// A module that was changed after it had been downloaded is not built from; Go itself looks at the download only.
func TestProgramsModules(t *testing.T) {
	module, cache := withModule(t)
	if got := says(t, module); got != "GOOD" {
		t.Fatalf("the program says %q", got)
	}
	build := func() error {
		_, err := buildPrograms(t.Context(), module, t.TempDir(), map[string]string{"p": "."})
		return err
	}
	dir := filepath.Join(cache, "example.org", "words@v1.0.0")
	writeFiles(t, dir, map[string]string{"zz.go": "package words\n\nfunc init() { Word = \"EVIL\" }\n"})
	if err := build(); err == nil || !strings.Contains(err.Error(), "is not the one of go.sum") {
		t.Errorf("a file more: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "zz.go")); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"words.go": "package words\n\nvar Word = \"EVIL\"\n"})
	if err := build(); err == nil || !strings.Contains(err.Error(), "is not the one of go.sum") {
		t.Errorf("another file: %v", err)
	}
	t.Setenv("GOMODCACHE", filepath.Join(t.TempDir(), "empty"))
	if err := build(); err == nil || !strings.Contains(err.Error(), "GOPROXY=off") {
		t.Errorf("without the module: %v: it was fetched?", err)
	}
	t.Setenv("GOMODCACHE", cache)
	writeFiles(t, module, map[string]string{"go.mod": "module example.org/p\n\ngo 1.26\n\nrequire example.org/words v1.0.0\n\nreplace example.org/words => " + dir + "\n"})
	if err := build(); err == nil || !strings.Contains(err.Error(), "is replaced") {
		t.Errorf("a replaced module: %v", err)
	}
}

// TestReadSums: a go.sum that says two things, or nothing, vouches for nothing.
func TestReadSums(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		text string
		ok   bool
	}{
		{"a v1 h1:x=\na v1/go.mod h1:y=\n", true},
		{"a v1 h1:x=\na v1 h1:y=\n", false},
		{"a v1\n", false},
	} {
		writeFiles(t, dir, map[string]string{"go.sum": tt.text})
		if sums, err := readSums(filepath.Join(dir, "go.sum")); (err == nil) != tt.ok || tt.ok && sums["a@v1"] != "h1:x=" {
			t.Errorf("%q: %v, %v", tt.text, sums, err)
		}
	}
}

// TestProgramsOwnModule: a directory without a go.mod is not built as a part of the module above it.
func TestProgramsOwnModule(t *testing.T) {
	above := t.TempDir()
	writeFiles(t, above, map[string]string{"go.mod": "module example.org/above\n\ngo 1.26\n", "in/main.go": goodMain})
	if _, err := buildPrograms(t.Context(), filepath.Join(above, "in"), t.TempDir(), map[string]string{"p": "."}); err == nil || !strings.Contains(err.Error(), "looking for the module") {
		t.Errorf("got %v", err)
	}
}
