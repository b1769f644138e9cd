package pivcard

import (
	"os"
	"strings"
	"testing"
)

// docs/pivcard.md names every verb, every flag of serve, every touch mode and every chain.
func TestDocument(t *testing.T) {
	data, err := os.ReadFile("../../docs/pivcard.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	var want []string
	for _, v := range Verbs() {
		if name := strings.TrimPrefix(v.Name, "pivcard "); name == "issuer" || name == "serve" {
			want = append(want, "testenv "+v.Name)
		} else {
			want = append(want, "`"+name+"`")
		}
	}
	_, help, _ := run(t.Context(), "pivcard", "serve", "--help")
	for line := range strings.Lines(help) {
		if name, ok := strings.CutPrefix(line, "  -"); ok {
			name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
			want = append(want, "`--"+strings.Trim(name, "-")+"`")
		}
	}
	if len(want) < len(Verbs())+9 {
		t.Fatalf("the help of serve shows few flags: %q", want)
	}
	for _, m := range []TouchMode{TouchManual, TouchAuto, TouchRefused, TouchLate} {
		want = append(want, "`"+string(m)+"`")
	}
	for _, c := range []Chain{ChainPIVRoot, ChainPIV, ChainFIDO} {
		want = append(want, "`"+string(c)+"`")
	}
	for _, w := range want {
		if !strings.Contains(page, w) {
			t.Errorf("docs/pivcard.md lacks %s", w)
		}
	}
}
