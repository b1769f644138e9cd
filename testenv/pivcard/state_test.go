package pivcard

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

// A card comes back from its file as it was.
func TestState(t *testing.T) {
	path := t.TempDir() + "/card.json"
	config := Config{Firmware: fw574, Issuer: issuer(t), Serial: FirstSerial + 7, FormFactor: 5}
	card, err := LoadOrNew(path, config)
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, card}
	c.must(0xA4, 4, 0, aidPIV)
	c.administrator()
	templates := map[byte][]byte{}
	for algorithm, slot := range map[byte]byte{0x11: 0x9A, 0x14: 0x9C, 0x07: 0x9D, 0xE0: 0x82, 0xE1: 0x83} {
		templates[slot] = c.generate(algorithm, slot, 1, 1)
	}
	c.must(0xDB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xC1, 0x02, 0x53, 1, 7})
	c.pin("000000")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}
	if c.card, err = LoadOrNew(path, Config{}); err != nil {
		t.Fatal(err)
	}
	if c.card.Serial() != config.Serial || c.card.Firmware() != fw574 {
		t.Errorf("got serial %d, firmware %s", c.card.Serial(), c.card.Firmware())
	}
	c.must(0xA4, 4, 0, aidPIV)
	c.refused(0x63C2, 0x20, 0, 0x80, nil)
	for slot, template := range templates {
		if all, _ := fields(c.must(0xF7, 0, slot, nil)); !bytes.Equal(all[4], template) {
			t.Errorf("slot %02x: another key", slot)
		}
	}
	c.check(0x11, 0x9A, publicOf(t, 0x11, templates[0x9A]))
	if got := c.must(0xCB, 0x3F, 0xFF, []byte{0x5C, 3, 0x5F, 0xC1, 0x02}); !bytes.Equal(got, []byte{0x53, 1, 7}) {
		t.Errorf("object: got % x", got)
	}
}

// What cannot be kept is not done as far as the program is told.
func TestStateCannotBeKept(t *testing.T) {
	c := newCard(t, fw574)
	c.card.save = func([]byte) error { return errors.New("disk full") }
	c.refused(statusMemory, 0x20, 0, 0x80, padded("000000"))
	if _, err := c.card.Generate(KeyPlan{Slot: "9a", Algorithm: "p256"}); err == nil {
		t.Error("generate: got no error")
	}
}

func TestLoadRefuses(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	c.generate(0x11, 0x9A, 1, 1)
	good, err := json.Marshal(c.card.state)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(s map[string]any)) []byte {
		var s map[string]any
		if err := json.Unmarshal(good, &s); err != nil {
			t.Fatal(err)
		}
		f(s)
		out, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	in := func(s map[string]any, name string) map[string]any { return s[name].(map[string]any) }
	for want, data := range map[string][]byte{
		"kind":                  change(func(s map[string]any) { s["kind"] = "x" }),
		"serial":                change(func(s map[string]any) { s["serial"] = 5 }),
		"firmware":              change(func(s map[string]any) { s["firmware"] = "3.0.0" }),
		"pin: wrong length":     change(func(s map[string]any) { in(s, "pin")["left"] = 9 }),
		"puk: wrong length":     change(func(s map[string]any) { in(s, "puk")["value"] = "AAAA" }),
		"management":            change(func(s map[string]any) { in(s, "management")["algorithm"] = 8 }),
		"slots or objects":      change(func(s map[string]any) { delete(s, "slots") }),
		`no slot "9b"`:          change(func(s map[string]any) { in(s, "slots")["9b"] = in(s, "slots")["9a"] }),
		"no such policy":        change(func(s map[string]any) { in(in(s, "slots"), "9a")["touch"] = 9 }),
		"a key of another":      change(func(s map[string]any) { in(in(s, "slots"), "9a")["algorithm"] = 0x14 }),
		"slot 9a":               change(func(s map[string]any) { in(in(s, "slots"), "9a")["pkcs8"] = "AAAA" }),
		`no object "60c102"`:    change(func(s map[string]any) { in(s, "objects")["60c102"] = "AAAA" }),
		`no object "05fc102"`:   change(func(s map[string]any) { in(s, "objects")["05fc102"] = "AAAA" }),
		"unexpected end of":     good[:len(good)-1],
		"cannot unmarshal":      []byte(`[]`),
		"larger than":           bytes.Repeat([]byte{' '}, maxState+1),
		"objects: more than":    change(func(s map[string]any) { fill(in(s, "objects")) }),
		"invalid character 'x'": []byte("x"),
	} {
		path := t.TempDir() + "/card.json"
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := Load(t.TempDir() + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}

func fill(objects map[string]any) {
	for i := range uint32(20) {
		objects[objectName(objectFirst+i)] = bytes.Repeat([]byte{1}, maxObject)
	}
}
