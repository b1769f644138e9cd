package bastion

import (
	"strconv"
	"testing"
)

// TestEscape: what a client chose becomes printable ASCII, once, and can be told apart from what looks like it.
func TestEscape(t *testing.T) {
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"anna", 64, "anna"},
		{`no engineer "anna"`, 64, `no engineer "anna"`},
		{"a\nb\x1b[31m\u202e", 64, `a\nb\x1b[31m\u202e`},
		{`a\n`, 64, `a\\n`},
		{`\"`, 64, `\\"`},
		{"\xff", 64, `\xff`},
		{"0123456789", 8, "01234567…"},
	} {
		if got := escape(test.text, test.limit); got != test.want {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
	for _, text := range []string{`\"`, `"\`, `\\""`, "\"\n\\"} {
		back := ""
		for _, r := range escape(text, 100) {
			if r == '"' {
				back += `\`
			}
			back += string(r)
		}
		if got, err := strconv.Unquote(`"` + back + `"`); err != nil || got != text {
			t.Errorf("%q does not come back: got %q, %v", text, got, err)
		}
	}
}
