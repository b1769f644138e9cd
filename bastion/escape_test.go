package bastion

import (
	"strconv"
	"strings"
	"testing"

	"mayfly/policies/bundle"
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

// TestRecordsEscapeEvidence: what the owner of a key chose for it is escaped and cut in records, however it came into the policy.
func TestRecordsEscapeEvidence(t *testing.T) {
	server := &Server{}
	server.ruling.Store(&ruling{bundle: &bundle.Bundle{}})
	v := &visit{server: server, credential: credential{evidence: "fido2, application \x1b[2J\n\xff" + strings.Repeat("x", 1000)}}
	r := v.loginRecord()
	if want := `fido2, application \x1b[2J\n\xffx`; !strings.HasPrefix(r.Evidence, want) || len(r.Evidence) > maxEvidence+16 || !strings.HasSuffix(r.Evidence, "x…") {
		t.Errorf("got %q, want %q and a bound", r.Evidence, want)
	}
}
