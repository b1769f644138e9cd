package trust

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestTrustIsDocumented: docs/formats/trust.md has a row for each field of trust.json, in the order of the file, and no other; the fields of
// people, of the recovery quorum and of the rules for hardware stand in a row's text.
func TestTrustIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	_, table, _ := strings.Cut(page, "| field | type | meaning |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var got, want []string
	for line := range strings.Lines(table) {
		got = append(got, strings.Trim(strings.Split(line, "|")[1], " `"))
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Trust]()) {
		want = append(want, f.Tag.Get("json"))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the page has %q, the file %q", got, want)
	}
	field := func(f reflect.StructField, whose string) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !strings.Contains(table, "`"+name+"`") {
			t.Errorf("%s %s is not in the table", whose, name)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Person]()) {
		field(f, "a person's")
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Recovery]()) {
		field(f, "the recovery's")
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Hardware]()) {
		field(f, "the hardware's")
	}
}
