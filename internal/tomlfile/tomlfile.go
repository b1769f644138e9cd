// Package tomlfile reads TOML strictly and says where it is wrong: an unknown key, a duplicate, a wrong type and every later
// objection of the package that owns the data come out as "file:line: message" with a hint.
//
// Decode does the reading. Checks of meaning know no lines; they name a place by its path, such as "server[2].capacity", in
// a Problem, and Doc.Place turns that into a line.
package tomlfile

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"mayfly/internal/hint"
)

// MaxSize bounds a file, in bytes: a policy may be as large as a bundle, for the evidence of its keys.
const MaxSize = 2 << 20

// Problem is an objection to a value, named by its path.
type Problem struct {
	Path string // "server[2].capacity"; "" for the whole file
	Err  error
}

// Error names the place by its path.
func (p *Problem) Error() string {
	if p.Path == "" {
		return p.Err.Error()
	}
	return p.Path + ": " + p.Err.Error()
}

func (p *Problem) Unwrap() error { return p.Err }

// At makes a Problem with a message and, unless mend is empty, a hint.
func At(path, mend, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if mend != "" {
		err = hint.New(err, "%s", mend)
	}
	return &Problem{Path: path, Err: err}
}

// Doc is a decoded file that remembers where each key stood.
type Doc struct {
	name  string
	nodes map[string]node
}

// Decode reads data, called name in errors, into v, a pointer to a zero struct whose keys are all lower case.
func Decode(name string, data []byte, v any) (*Doc, error) {
	if len(data) > MaxSize {
		return nil, hint.New(fmt.Errorf("%s: longer than %d bytes", name, MaxSize), "this is not one of mayfly's files")
	}
	if err := decode(data, v); err != nil {
		return nil, explain(name, data, v, err)
	}
	nodes, err := locate(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	d := &Doc{name: name, nodes: nodes}
	for path, n := range nodes {
		// The decoder matches keys in any case; two spellings of one key would overwrite each other.
		if key := path[strings.LastIndexByte(path, '.')+1:]; strings.ToLower(key) != key {
			return nil, hint.New(fmt.Errorf("%s:%d: unknown key %q", name, n.line, key), "keys are lower case: %s", strings.ToLower(key))
		}
		// The decoder would take the time zone of this machine, and people elsewhere would sign another moment than they read.
		if n.zone {
			return nil, hint.New(fmt.Errorf("%s:%d: %s has no offset from UTC", name, n.line, path), "write date, time and offset, for example 2027-01-01T00:00:00Z")
		}
	}
	return d, nil
}

func decode(data []byte, v any) error {
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// explain turns the decoder's error into one line with a place and a hint.
func explain(name string, data []byte, v any, err error) error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) && len(missing.Errors) > 0 {
		first := &missing.Errors[0]
		for i := range missing.Errors { // the first in the file
			if lineOf(&missing.Errors[i]) < lineOf(first) {
				first = &missing.Errors[i]
			}
		}
		return hint.New(fmt.Errorf("%s:%d: unknown key %q", name, lineOf(first), strings.Join(first.Key(), ".")),
			"check the spelling, and that the key stands under the right [table]")
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		return hint.New(fmt.Errorf("%s:%d: %s", name, line, plain(strings.TrimPrefix(decode.Error(), "toml: "), decode.Key())),
			"see column %d; docs/formats has each file's keys and types", column)
	}
	return hint.New(fmt.Errorf("%s:%d: %w", name, unplacedLine(data, v), err), "docs/formats has each file's keys and types")
}

// intoField is how the decoder says that a value has another type than this program's own.
var intoField = regexp.MustCompile(`cannot decode TOML (\w+) into struct field .+ of type (\S+)$`)

// plain says it in the words of the file.
func plain(text string, key []string) string {
	m := intoField.FindStringSubmatch(text)
	if m == nil || len(key) == 0 {
		return text
	}
	want := "another type"
	switch kind := strings.TrimLeft(m[2], "*"); {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		want = "a whole number, without quotes"
	case strings.HasPrefix(kind, "bool"):
		want = "true or false, without quotes"
	case kind == "string":
		want = "a text in quotes"
	case strings.HasPrefix(kind, "[]"):
		want = "a list in [ ]"
	}
	return fmt.Sprintf("%s is a TOML %s: want %s", strings.Join(key, "."), m[1], want)
}

// unplacedLine finds the line of an error that the decoder gives no place for: a number, say, where a type reads text. It is the
// shortest head of the file that has such an error; the decoder works from the top, so every longer one has it too.
func unplacedLine(data []byte, v any) int {
	lines := bytes.SplitAfter(data, []byte{'\n'})
	ends := make([]int, len(lines)+1)
	for i, l := range lines {
		ends[i+1] = ends[i] + len(l)
	}
	return max(1, sort.Search(len(lines), func(n int) bool {
		err := decode(data[:ends[n]], reflect.New(reflect.TypeOf(v).Elem()).Interface())
		var missing *toml.StrictMissingError
		var placed *toml.DecodeError
		return err != nil && !errors.As(err, &missing) && !errors.As(err, &placed)
	}))
}

func lineOf(e *toml.DecodeError) int {
	line, _ := e.Position()
	return line
}

// Line returns the line of the path, or of the nearest table that holds it, or 1.
func (d *Doc) Line(path string) int {
	for path != "" {
		if n, ok := d.nodes[path]; ok {
			return n.line
		}
		path = parent(path)
	}
	return 1
}

// Place turns a Problem into an error that begins with the file's name and the line, and keeps its hint.
func (d *Doc) Place(err error) error {
	var p *Problem
	if !errors.As(err, &p) {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", d.name, err)
	}
	return fmt.Errorf("%s:%d: %w", d.name, d.Line(p.Path), p.Err)
}

// WantString refuses each path whose value is there but is no string: for types that the decoder would take a number for.
func (d *Doc) WantString(format string, paths ...string) error {
	for _, path := range paths {
		if n, ok := d.nodes[path]; ok && !n.text {
			return d.Place(At(path, "write it in quotes, for example "+format, "%s must be a string", path))
		}
	}
	return nil
}

func parent(path string) string {
	if i := strings.LastIndexAny(path, ".["); i > 0 {
		return path[:i]
	}
	return ""
}
