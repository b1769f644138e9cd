package policies

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// keysOf walks a type's toml tags: "ssh.level" in a table, "[[engineer]] name" in a list of tables.
func keysOf(t reflect.Type, table string, list map[string]bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		of := f.Type
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		inner := of.Kind() == reflect.Struct && of != reflect.TypeFor[time.Time]() && of.NumField() > 0 && of.Field(0).Tag.Get("toml") != ""
		switch {
		case tag == "" || tag == "-":
		case inner && f.Type.Kind() == reflect.Slice:
			name := "[[" + strings.Trim(table, "[] .") + "." + tag + "]] "
			keysOf(of, strings.Replace(name, "[[.", "[[", 1), list)
		case inner:
			keysOf(of, table+tag+".", list)
		default:
			list[table+tag] = true
		}
	}
}

var quoted = regexp.MustCompile("`([^`]+)`")

// documented reads the first table of a page: a key a row, of a table ("ssh.level", ".ciphers" of the same) or of a list of tables, whose name
// stands in the first column and whose keys in the second.
func documented(page string) map[string]bool {
	list := map[string]bool{}
	_, rest, _ := strings.Cut(page, "|---|---|---|\n")
	array, table := "", ""
	for line := range strings.Lines(rest) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			break
		}
		first := quoted.FindAllStringSubmatch(cells[1], -1)
		if len(first) > 0 && strings.HasPrefix(first[0][1], "[[") {
			array = first[0][1] + " "
		} else if len(first) > 0 {
			array = ""
			for _, m := range first {
				key := m[1]
				if strings.HasPrefix(key, ".") {
					key = table + key
				}
				table, _, _ = strings.Cut(key, ".")
				list[key] = true
			}
		}
		if array != "" {
			for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
				list[array+m[1]] = true
			}
		}
	}
	return list
}

// TestPolicyIsDocumented: docs/formats/policy.md names every key of a policy, and no other.
func TestPolicyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/formats/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]bool{}, documented(string(page))
	keysOf(reflect.TypeFor[Policy](), "", want)
	if len(want) < 60 {
		t.Fatalf("found only %d keys: %v", len(want), slices.Sorted(maps.Keys(want)))
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if !got[key] {
			t.Errorf("%s is not in the page's table", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if !want[key] {
			t.Errorf("the page has %s, which no policy has", key)
		}
	}
}
