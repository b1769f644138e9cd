package site

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestParseAnswer(t *testing.T) {
	for text, want := range map[string]Answer{
		`{"power":"on"}`:               {Power: On},
		"{\n \"reason\": \"busy\" }\n": {Reason: "busy"},
		`{}`:                           {},
		`{"boot":"http://192.0.2.1/x","text":""}`: {Boot: "http://192.0.2.1/x"},
	} {
		if got, err := ParseAnswer([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "two": "{} {}", "unknown": `{"on":true}`, "twice": `{"power":"on","power":"off"}`, "list": `[]`, "number": `{"power":1}`,
		"nested": `{"power":{"a":1}}`, "null": "null", "junk after": "{}x", "not utf-8": "{\"text\":\"\xff\"}",
		"long text": `{"text":"` + strings.Repeat("x", MaxText+1) + `"}`, "oversize": `{"console":"` + strings.Repeat("x", MaxMessage) + `"}`,
	} {
		if got, err := ParseAnswer([]byte(text)); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestParseRequest(t *testing.T) {
	data, err := json.Marshal(Request{Protocol: Protocol, Do: DoBoot, Server: "se-1", Epoch: 7, Medium: "m", Script: "s", Settings: "x", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := ParseRequest(data); err != nil || r.Epoch != 7 || r.Password != "p" {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := ParseRequest([]byte(`{"protocol":"mayfly-power/2","do":"on","server":"se-1"}`)); err == nil {
		t.Error("another protocol was taken")
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{`{"power":"on"}`, `{"power":"on","power":"off"}`, `{} {}`, `{"console":"\u0000"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAnswer(data)
		if err == nil && (len(a.Text) > MaxText || !json.Valid(data)) {
			t.Errorf("accepted %q", data)
		}
	})
}

// TestDocs: docs/formats/power.md names every key.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../../../docs/formats/power.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{Request{}, Answer{}} {
		for f := range reflect.TypeOf(v).NumField() {
			key, _, _ := strings.Cut(reflect.TypeOf(v).Field(f).Tag.Get("json"), ",")
			if !strings.Contains(string(data), "\n| `"+key+"` | ") {
				t.Errorf("docs/formats/power.md lacks %s", key)
			}
		}
	}
}
