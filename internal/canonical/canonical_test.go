package canonical

import (
	"bytes"
	"strings"
	"testing"
)

type sample struct {
	Name string   `json:"name"`
	List []string `json:"list"`
}

func TestParse(t *testing.T) {
	good := "{\n  \"name\": \"a<b\",\n  \"list\": [\n    \"x\"\n  ]\n}\n"
	tests := []struct{ name, data, want string }{
		{"good", good, ""},
		{"empty", "", "unexpected EOF"},
		{"half", good[:10], "unexpected EOF"},
		{"no newline", strings.TrimSpace(good), "not in canonical form"},
		{"trailing data", good + "{}", "not in canonical form"},
		{"two newlines", good + "\n", "not in canonical form"},
		{"unknown field", `{"other": 1}`, "unknown field"},
		{"duplicate", strings.Replace(good, `"name"`, `"name": "z", "name"`, 1), "not in canonical form"},
		{"other case", strings.Replace(good, `"name"`, `"Name"`, 1), "not in canonical form"},
		{"other order", "{\n  \"list\": null,\n  \"name\": \"\"\n}\n", "not in canonical form"},
		{"missing field", "{\n  \"name\": \"\"\n}\n", "not in canonical form"},
		{"escape", strings.Replace(good, "<", `\u003c`, 1), "not in canonical form"},
		{"bad UTF-8", strings.Replace(good, "<", "\xff", 1), "not in canonical form"},
		{"wrong type", `{"name": 1}`, "cannot unmarshal"},
		{"too long", good + strings.Repeat(" ", 100), "longer than"},
	}
	for _, tt := range tests {
		var v sample
		err := Parse([]byte(tt.data), len(good)+50, &v)
		if tt.want == "" {
			if err != nil || v.Name != "a<b" {
				t.Errorf("%s: got %+v, %v", tt.name, v, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("{\n  \"name\": \"a\",\n  \"list\": null\n}\n"))
	f.Add([]byte("{\n  \"name\": \"\",\n  \"list\": []\n}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v sample
		if Parse(data, 1<<16, &v) != nil {
			return
		}
		if again, err := Marshal(v); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, which marshals to %q, %v", data, again, err)
		}
	})
}
