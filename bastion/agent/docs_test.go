package agent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReasonsAreDocumented: the table of docs/formats/agent.md has every reason of reasons.go, in its order, and no other; each stands in a test.
func TestReasonsAreDocumented(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{} // value to constant
	var want []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && len(spec.Values) == 1 && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			value := strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)
			want = append(want, value)
			names[value] = spec.Names[0].Name
		}
		return true
	})
	page, err := os.ReadFile("../../docs/formats/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## Reasons\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| .").FindAllStringSubmatch(table, -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) || len(want) < 25 {
		t.Errorf("the table has\n%q\nreasons.go has\n%q", got, want)
	}
	var tests strings.Builder
	for _, name := range []string{"agent_test.go", "card_test.go", "keyring_test.go", "openssh_test.go", "faults_test.go"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(data)
	}
	for value, name := range names {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(tests.String()) {
			t.Errorf("no test has %s (%s)", name, value)
		}
	}
}

// TestNumbersAreDocumented: the bounds that the page names are the program's.
func TestNumbersAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	if maxMessage != 256<<10 || maxConnections != 64 || messageTime.Seconds() != 30 || maxBinds != 16 || minSessionID != 20 || maxSessionID != 64 ||
		maxShown != 60 || DefaultPINTime.Minutes() != 2 || maxPINPrompts != 3 || DefaultTouchTime.Seconds() != 30 || touchGrace.Milliseconds() != 250 ||
		refusalsEach.Seconds() != 3 || maxCards != 16 || maxKeys != 32 || maxWaiting != 8 || busyTime.Seconds() != 17 || touchWindow.Seconds() != 15 || rememberFor.Seconds() != 5 || listWait.Seconds() != 5 || chainWait.Seconds() != 8 || maxChainedKeys != 128 {
		t.Error("a bound changed: docs/formats/agent.md names it")
	}
	for _, part := range []string{"256 KiB", "64 connections", "16 bindings", "20 to 64 bytes", "60 characters", "2 minutes", "quarter of a second", "128 of each"} {
		if !strings.Contains(string(page), part) {
			t.Errorf("the page lacks %q", part)
		}
	}
}
