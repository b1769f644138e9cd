package importer

import (
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"mayfly/inventory"
)

// regionKey is no key of [[server]]: it names the region of a rack that fleet.toml does not have yet.
const regionKey = "region"

// kind is what a key of [[server]] holds.
type kind int

const (
	text kind = iota
	integer
	boolean
	list
)

// serverKeys are the keys of [[server]], tables below it joined by dots.
var serverKeys = keysOf(reflect.TypeFor[inventory.Server](), "")

func keysOf(t reflect.Type, prefix string) map[string]kind {
	keys := map[string]kind{}
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		key = prefix + key
		switch {
		case reflect.PointerTo(f.Type).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
			keys[key] = text
		case f.Type.Kind() == reflect.Struct:
			maps.Copy(keys, keysOf(f.Type, key+"."))
		case f.Type.Kind() == reflect.Slice:
			keys[key] = list
		case f.Type.Kind() == reflect.Int:
			keys[key] = integer
		case f.Type.Kind() == reflect.Bool:
			keys[key] = boolean
		default:
			keys[key] = text
		}
	}
	return keys
}

// Keys are what a field may be mapped to.
func Keys() []string { return slices.Sorted(maps.Keys(withRegion())) }

func withRegion() map[string]kind {
	all := maps.Clone(serverKeys)
	all[regionKey] = text
	return all
}

// literal is a value as TOML has it; ok is false if it is not of the key's kind.
func literal(k kind, value string) (toml string, ok bool) {
	switch k {
	case integer:
		n, err := strconv.Atoi(value)
		return strconv.Itoa(n), err == nil
	case boolean:
		b, err := strconv.ParseBool(strings.ToLower(value))
		return strconv.FormatBool(b), err == nil
	case list:
		var elements []string
		for e := range strings.SplitSeq(value, ",") {
			if e = strings.TrimSpace(e); e != "" {
				elements = append(elements, quote(e))
			}
		}
		return "[" + strings.Join(elements, ", ") + "]", len(elements) > 0
	}
	return quote(value), true
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "�") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u00`)
			b.WriteString(strconv.FormatInt(int64(r)+0x100, 16)[1:])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
