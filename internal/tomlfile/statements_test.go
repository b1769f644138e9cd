package tomlfile

import (
	"fmt"
	"strings"
	"testing"
)

func TestStatements(t *testing.T) {
	text := "# top\nversion = 7 # of today\n\n[ssh]\nallow = [ # networks\n  \"a\", # = one\n]\n\"quoted = key\"   =   \"\"\"\n# no comment\n[[no.header]]\n# bar\"\"\" # end\n" +
		"[[engineer]]\nname = \"anna\"\r\n[[engineer.key]]\npublic = \"k\"\n\n[[engineer]]\n[[ \"engineer\" . key ]] # x\na.b = {c = 1}"
	list, err := Statements([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		line := fmt.Sprintf("%s|%s|%q", s.Path, s.Table, text[s.Start:s.End])
		if !s.Header {
			line += fmt.Sprintf("|%q", text[s.Value[0]:s.Value[1]])
		}
		got = append(got, line)
	}
	want := []string{
		`version||"version = 7 # of today\n"|"7"`,
		`ssh|ssh|"[ssh]\n"`,
		`ssh.allow|ssh|"allow = [ # networks\n  \"a\", # = one\n]\n"|"[ # networks\n  \"a\", # = one\n]"`,
		`ssh.quoted = key|ssh|"\"quoted = key\"   =   \"\"\"\n# no comment\n[[no.header]]\n# bar\"\"\" # end\n"|"\"\"\"\n# no comment\n[[no.header]]\n# bar\"\"\""`,
		`engineer[0]|engineer[0]|"[[engineer]]\n"`,
		`engineer[0].name|engineer[0]|"name = \"anna\"\r\n"|"\"anna\""`,
		`engineer[0].key[0]|engineer[0].key[0]|"[[engineer.key]]\n"`,
		`engineer[0].key[0].public|engineer[0].key[0]|"public = \"k\"\n"|"\"k\""`,
		`engineer[1]|engineer[1]|"[[engineer]]\n"`,
		`engineer[1].key[0]|engineer[1].key[0]|"[[ \"engineer\" . key ]] # x\n"`,
		`engineer[1].key[0].a.b|engineer[1].key[0]|"a.b = {c = 1}"|"{c = 1}"`,
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("statement %d:\ngot  %s\nwant %s", i, strings.Join(got[min(i, len(got)):], "\n"), strings.Join(want[min(i, len(want)):], "\n"))
		}
	}
	for _, bad := range []string{"x", "[a", "a = [", "a = 1 b = 2"} {
		if _, err := Statements([]byte(bad)); err == nil {
			t.Errorf("%q: got nil, want an error", bad)
		}
	}
}
