package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/command"
	"mayfly/policies"
)

// TestEffects: of every verb somebody has said what it changes and by whose word, and one that acts by a request takes one.
func TestEffects(t *testing.T) {
	ordered := map[string]bool{}
	for _, v := range program.Verbs {
		e, ok := effects[v.Name]
		if !ok {
			t.Errorf("%q: nobody has said by whose word it acts: fleetctl/effects.go, and the table in docs/formats/request.md", v.Name)
			continue
		}
		if takes := strings.Contains(v.Args, "--request"); takes != (e.by == byRequest) {
			t.Errorf("%q acts by %s, and its usage line says: %s", v.Name, e.by, v.Args)
		}
		for _, a := range e.actions {
			ordered[a] = true
			if !slices.Contains(policies.Actions, a) {
				t.Errorf("%q: there is no action %q", v.Name, a)
			}
		}
		switch {
		case (e.by == byRequest) != (len(e.actions) > 0):
			t.Errorf("%q: by %s, actions %q", v.Name, e.by, e.actions)
		case (e.by == byNobody) != (e.who == ""):
			t.Errorf("%q: by %s, checked by %q", v.Name, e.by, e.who)
		case e.by == byNobody && e.on != onNothing:
			t.Errorf("%q changes %s by nobody's word", v.Name, e.on)
		}
	}
	for _, a := range policies.Actions {
		if a == policies.ActionPause || a == policies.ActionRestore {
			continue // their verbs come in files of their own; the table above has them
		}
		if !ordered[a] {
			t.Errorf("no verb does %q", a)
		}
	}
}

// TestUnclassified: a verb that nobody has classified does nothing.
func TestUnclassified(t *testing.T) {
	v := classified(command.Verb{Name: "format-all", Run: func(context.Context, *command.Call) error {
		t.Error("it ran")
		return nil
	}})
	p := command.Program{Name: "fleetctl", Verbs: []command.Verb{v}}
	if code := p.Main(t.Context(), []string{"format-all"}, strings.NewReader(""), io.Discard, io.Discard); code != command.Refused {
		t.Errorf("got exit code %d, want %d", code, command.Refused)
	}
}

// TestEffectsAreDocumented: docs/formats/request.md has the same table.
func TestEffectsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/formats/request.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(data), "| verb | on | by | checked by |\n| --- | --- | --- | --- |\n")
	if !found {
		t.Fatal("docs/formats/request.md has no table of verbs")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	have := slices.Collect(strings.Lines(strings.TrimSpace(table) + "\n"))
	for _, name := range slices.Sorted(maps.Keys(effects)) {
		e := effects[name]
		if e.by == byNobody {
			continue
		}
		by := e.by
		for i, a := range e.actions {
			by += map[bool]string{true: ": ", false: ", "}[i == 0] + "`" + a + "`"
		}
		line := fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, e.on, by, e.who)
		if i := slices.Index(have, line); i >= 0 {
			have = slices.Delete(have, i, i+1)
		} else {
			t.Errorf("docs/formats/request.md lacks the line\n%s", line)
		}
	}
	for _, line := range have {
		t.Errorf("docs/formats/request.md has a line of no verb: %s", line)
	}
}
