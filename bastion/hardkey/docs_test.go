package hardkey

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/formats/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// docs/formats/evidence.md explains every reason, in Reasons' order, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	_, table, ok := strings.Cut(page(t), "| reason | what it says | what stops there |\n|---|---|---|\n")
	if !ok {
		t.Fatal("the page has no table of reasons")
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [^|]{10,} \\| [^|]{10,} \\|$").FindAllStringSubmatch(table, -1) {
		got = append(got, m[1])
	}
	want := Reasons()
	for _, r := range want {
		if !slices.Contains(got, r) {
			t.Errorf("%s is not in the page's table", r)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the page has %d reasons, the code %d: %v", len(got), len(want), got)
	}
}

// Reasons has every constant of rejection.go, once; and each is what some table of these tests wants.
func TestReasonsAreAll(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "rejection.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	list := Reasons()
	names := map[string]bool{}
	for _, decl := range file.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			reason, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.Index(list, reason); i < 0 || slices.Contains(list[i+1:], reason) {
				t.Errorf("%s is not in Reasons once", reason)
			}
			names[v.Names[0].Name] = true
		}
	}
	if len(names) != len(list) || len(list) < 20 {
		t.Errorf("got %d constants and %d reasons", len(names), len(list))
	}
	var tests strings.Builder
	for _, name := range []string{"piv_test.go", "fido2_test.go"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(data)
	}
	for name := range names {
		if !strings.Contains(tests.String(), ", "+name+", ") {
			t.Errorf("no test wants the reason %s", name)
		}
	}
}

// The page names the fields of what is shown, and the issuers that are built in.
func TestShownIsDocumented(t *testing.T) {
	text := page(t)
	fields := reflect.TypeFor[Shown]()
	for i := range fields.NumField() {
		if tag := fields.Field(i).Tag.Get("toml"); !strings.Contains(text, "\n| `"+tag+"` | ") {
			t.Errorf("the page has no row for %s", tag)
		}
	}
	flat := strings.Join(strings.Fields(text), " ")
	for _, is := range builtin() {
		words := strings.Fields(is.name)
		short := strings.Join(words[len(words)-2:], " ") // "B 1" in "Yubico PIV Attestation A 1, B 1 or B2 1"
		if is.applet != otherApplet && !strings.Contains(flat, is.name) && !strings.Contains(flat, ", "+short+" or ") && !strings.Contains(flat, " or "+short) {
			t.Errorf("the page does not name %s", is.name)
		}
	}
	for _, kind := range []string{KindPIV, KindFIDO2} {
		for _, name := range KeyTypes(kind) {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("the page does not name the type %s", name)
			}
		}
	}
	for _, oid := range []string{oidFirmware.String(), oidAAGUID.String(), attestMagic, attestOld, Namespace, attestationUnit, strings.TrimSpace(slotName)} {
		if !strings.Contains(text, oid) {
			t.Errorf("the page does not name %s", oid)
		}
	}
}
