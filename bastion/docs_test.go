package bastion

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fieldsOf are the names of a record's fields, those of records within it too.
func fieldsOf(t reflect.Type) (list []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return nil
	}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			list = append(append(list, name), fieldsOf(f.Type)...)
		}
	}
	return list
}

// TestRecordsAreDocumented: docs/formats/audit.md names every event, and, where the event's fields are listed, every field of its record.
func TestRecordsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/formats/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	// between is the part of the page from a text to the next heading.
	between := func(from string) string {
		_, part, found := strings.Cut(page, from)
		if !found {
			t.Fatalf("the page has no %q", from)
		}
		part, _, _ = strings.Cut(part, "\n#")
		return part
	}
	table, shared := between("## Events of the bastion\n"), between("### `login`, `target`, `policy`, `serve`, `stop`\n")
	for _, tt := range []struct {
		events []string
		record reflect.Type
		text   string
	}{
		{[]string{eventServe, eventStop, eventPolicy}, reflect.TypeFor[policyRecord](), shared},
		{[]string{eventFresh}, reflect.TypeFor[freshRecord](), between("### `fresh`\n")},
		{[]string{eventRefused}, reflect.TypeFor[refusalRecord](), between("### `refused`\n")},
		{[]string{eventLogin}, reflect.TypeFor[loginRecord](), shared},
		{[]string{eventTarget}, reflect.TypeFor[openingRecord](), shared},
		{[]string{eventWitness}, reflect.TypeFor[witnessRecord](), between("## Witnesses\n")},
		{[]string{eventConnection}, reflect.TypeFor[closingRecord](), between("### `connection`\n") + shared}, // of the targets' bases
		{[]string{eventStatement}, reflect.TypeFor[statementRecord](), between("### `statement`\n")},
		{[]string{eventPlugins}, reflect.TypeFor[pluginsRecord](), between("### `plugins`\n")},
		{[]string{eventBreakGlass}, reflect.TypeFor[breakGlassRecord](), between("### `break_glass`\n")},
	} {
		for _, event := range tt.events {
			if !strings.Contains(table, "`"+event+"`") {
				t.Errorf("event %s is not in the table", event)
			}
		}
		for _, name := range fieldsOf(tt.record) {
			if !strings.Contains(tt.text, "`"+name+"`") {
				t.Errorf("%s: field %s is not described", tt.events[0], name)
			}
		}
	}
}

// TestStatusIsDocumented does the same for what "bastion status -o json" prints.
func TestStatusIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/formats/control.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range fieldsOf(reflect.TypeFor[Status]()) {
		if !strings.Contains(string(data), "`"+name+"`") {
			t.Errorf("field %s is not described", name)
		}
	}
}
