package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// goRun finds the verbs of this program that a text names.
var goRun = regexp.MustCompile(`go run \./testenv ([a-z]+)`)

// TestDocumentsNameRealCommands: what README, Justfile, .ci/run and docs/testing.md tell a person to type exists.
func TestDocumentsNameRealCommands(t *testing.T) {
	first := map[string]bool{}
	for _, v := range verbNames() {
		first[strings.Fields(v)[0]] = true
	}
	for _, name := range []string{"README.md", "Justfile", ".ci/run", "docs/testing.md"} {
		text := read(t, name)
		found := goRun.FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s names no command of testenv", name)
		}
		for _, m := range found {
			if !first[m[1]] {
				t.Errorf("%s names `testenv %s`, which does not exist", name, m[1])
			}
		}
		for _, dir := range regexp.MustCompile(` \./([a-z][a-z/-]*)`).FindAllStringSubmatch(text, -1) {
			if info, err := os.Stat(filepath.Join("..", dir[1])); err != nil || !info.IsDir() {
				t.Errorf("%s names package ./%s: %v", name, dir[1], err)
			}
		}
	}
}

// TestReadme holds the README to its shape: the demo in the first screen, every folder in the table, links that lead somewhere.
func TestReadme(t *testing.T) {
	text := read(t, "README.md")
	lines := strings.Split(text, "\n")
	if len(lines) > 150 {
		t.Errorf("got %d lines, want at most 150", len(lines))
	}
	if !strings.Contains(strings.Join(lines[:24], "\n"), "go run ./testenv demo") {
		t.Error("the demo is not in the first screen")
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" && e.Name() != "testdata" && !strings.Contains(text, "| `"+e.Name()+"/` |") {
			t.Errorf("the folder table lacks %s/", e.Name())
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("link to %s: %v", m[1], err)
		}
	}
	if got := strings.Count(text, "```mermaid"); got != 1 {
		t.Errorf("got %d pictures of the flows, want one", got)
	}
}

// TestJustfile: one recipe line each, and one for each daily command.
func TestJustfile(t *testing.T) {
	var recipes []string
	bodies := map[string]int{}
	for line := range strings.Lines(read(t, "Justfile")) {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " "):
			bodies[recipes[len(recipes)-1]]++
		default:
			name, _, _ := strings.Cut(line, ":")
			recipes = append(recipes, strings.Fields(name)[0])
		}
	}
	for _, want := range []string{"demo", "up", "status", "down", "test", "bench"} {
		if !slices.Contains(recipes, want) {
			t.Errorf("no recipe %s", want)
		}
	}
	for _, r := range recipes {
		if bodies[r] != 1 {
			t.Errorf("recipe %s has %d lines, want 1", r, bodies[r])
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
