package tomlfile

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
)

type sample struct {
	Name  string     `toml:"name"`
	Addr  netip.Addr `toml:"addr"`
	Limit string     `toml:"limit"`
	Until time.Time  `toml:"until"`
	Items []struct {
		Name string   `toml:"name"`
		List []string `toml:"list"`
		Sub  []struct {
			Key string `toml:"key"`
		} `toml:"sub"`
		Inline struct {
			A int `toml:"a"`
			B int `toml:"b"`
		} `toml:"inline"`
	} `toml:"item"`
}

const good = `# line 1
name = "x"
addr = "10.0.0.1"

[[item]]
name = "one"
list = [
  "a", # comment
  # comment
  "b",
]
inline = { a = 1, b = 2 }
[[item.sub]]
key = "k0"
[[item.sub]]
key = "k1"

[[item]]
name = "two"
inline.a = 3
[[item.sub]]
key = "k2"
`

func TestLine(t *testing.T) {
	var v sample
	doc, err := Decode("f", []byte(good), &v)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		want int
	}{
		{"name", 2}, {"addr", 3}, {"item", 5}, {"item[0]", 5}, {"item[0].name", 6}, {"item[0].list", 7},
		{"item[0].list[0]", 8}, {"item[0].list[1]", 10}, {"item[0].inline", 12}, {"item[0].inline.b", 12},
		{"item[0].sub[0]", 13}, {"item[0].sub[0].key", 14}, {"item[0].sub[1].key", 16},
		{"item[1]", 18}, {"item[1].name", 19}, {"item[1].inline.a", 20}, {"item[1].sub[0]", 21}, {"item[1].sub[0].key", 22},
		// What is not there: the nearest table.
		{"item[1].sub[0].other", 21}, {"item[1].list", 18}, {"item[0].list[7]", 7}, {"item[7].name", 5}, {"", 1}, {"other", 1},
	} {
		if got := doc.Line(tt.path); got != tt.want {
			t.Errorf("%q: got line %d, want %d", tt.path, got, tt.want)
		}
	}
	_, first := doc.nodes["item[0].inline.b"]
	if _, second := doc.nodes["item[1].inline.b"]; !first || second {
		t.Errorf("inline.b is there in the first item alone: got %v, %v", first, second)
	}
}

func TestPlace(t *testing.T) {
	var v sample
	doc, err := Decode("f.toml", []byte(good), &v)
	if err != nil {
		t.Fatal(err)
	}
	err = doc.Place(At("item[1].name", "call it three", "name %q is taken", "two"))
	if got, want := err.Error(), `f.toml:19: name "two" is taken`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := hint.Of(err), "call it three"; got != want {
		t.Errorf("hint: got %q, want %q", got, want)
	}
	if err := At("", "", "all wrong"); err.Error() != "all wrong" || hint.Of(err) != "" {
		t.Errorf("got %q, hint %q", err, hint.Of(err))
	}
	if got, want := doc.Place(errors.New("x")).Error(), "f.toml: x"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := doc.Place(nil); err != nil {
		t.Errorf("nil: got %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"syntax", "name = \"x\"\n=\n", "f:2: "},
		{"unknown key", "addr = \"::1\"\nother = 1\nmore = 2\n", `f:2: unknown key "other"`},
		{"unknown key of a table", "[[item]]\nname = \"x\"\nnam = 2\n", `f:3: unknown key "item.nam"`},
		{"duplicate", "name = \"x\"\nname = \"y\"\n", "f:2: "},
		{"other case", "name = \"x\"\nName = \"y\"\n", `f:2: unknown key "Name"`},
		{"wrong type", "\nname = 3\n", "f:2: "},
		{"date alone", "name = \"x\"\nuntil = 2027-01-01\n", "f:2: until has no offset from UTC"},
		{"time without an offset", "\n\nuntil = 2027-01-01T00:00:00\n", "f:3: until has no offset from UTC"},
		{"the same, with a blank", "until = 2027-01-01 00:00:00.5\n", "f:1: until has no offset from UTC"},
		{"bad text", "\naddr = \"x\"\n", "f:2: "},
		{"number for text", "\n\naddr = 10\nname = \"x\"\n", "f:3: "},
		{"number for text, last", "name = \"x\"\naddr = 10.5", "f:2: "},
		{"bool for text", "[[item]]\nname = \"x\"\n[[item]]\nlist = [\n\"x\"\n]\ninline = {}\n[other]\naddr = true\n", "f:8: "},
		{"no UTF-8", "name = \"\xff\"\n", "f:1: "},
	} {
		var v sample
		_, err := Decode("f", []byte(tt.text), &v)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, hint %q, want %q and a hint", tt.name, err, hint.Of(err), tt.want)
		}
	}
	var v sample
	if _, err := Decode("f", make([]byte, MaxSize+1), &v); err == nil {
		t.Error("huge file: got nil, want an error")
	}
}

func TestWantString(t *testing.T) {
	var v sample
	doc, err := Decode("f", []byte(good), &v)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.WantString(`"30m"`, "name", "limit", "item[0].name"); err != nil {
		t.Errorf("strings and what is not there: got %v", err)
	}
	if err := doc.WantString(`"30m"`, "name", "item[1].inline.a"); err == nil || !strings.HasPrefix(err.Error(), "f:20: ") {
		t.Errorf("a number: got %v, want line 20", err)
	}
}
