package main

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"mayfly/bastion"
)

// TestHelpExplainsEveryKey: the configuration in the help is TOML, once what explains it is taken off, and has every key of bastion.toml and no other.
func TestHelpExplainsEveryKey(t *testing.T) {
	line := regexp.MustCompile(`^  (\[+[a-z_]+\]+|[a-z_]+ *= *(?:"[^"]*"|\[[^\]]*\]|[0-9]+))  +\S`)
	var text strings.Builder
	for l := range strings.Lines(configHelp) {
		if strings.HasPrefix(l, "  ") {
			m := line.FindStringSubmatch(l)
			if m == nil {
				t.Fatalf("not KEY = VALUE and what it is: %s", l)
			}
			text.WriteString(m[1] + "\n")
		}
	}
	var help map[string]any
	if err := toml.Unmarshal([]byte(text.String()), &help); err != nil {
		t.Fatalf("%v in\n%s", err, &text)
	}
	got, want := map[string]bool{}, map[string]bool{}
	keysOfHelp(help, "", got)
	keysOfConfig(reflect.TypeFor[bastion.Config](), "", want)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if !got[key] {
			t.Errorf("the help lacks %s", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if !want[key] {
			t.Errorf("the help has %s, which bastion.toml has not", key)
		}
	}
	if len(want) < 30 {
		t.Errorf("found only %d keys", len(want))
	}
}

func keysOfHelp(table map[string]any, prefix string, list map[string]bool) {
	for key, value := range table {
		switch v := value.(type) {
		case map[string]any:
			keysOfHelp(v, prefix+key+".", list)
		case []any:
			if inner, ok := v[0].(map[string]any); ok {
				keysOfHelp(inner, prefix+key+".", list)
				continue
			}
			list[prefix+key] = true
		default:
			list[prefix+key] = true
		}
	}
}

func keysOfConfig(t reflect.Type, prefix string, list map[string]bool) {
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("toml")
		of := f.Type
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		switch {
		case tag == "" || tag == "-":
		case of.Kind() == reflect.Struct && of.NumField() > 0 && of.Field(0).Tag.Get("toml") != "":
			keysOfConfig(of, prefix+tag+".", list)
		default:
			list[prefix+tag] = true
		}
	}
}
