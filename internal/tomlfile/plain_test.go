package tomlfile

import (
	"strings"
	"testing"
)

// TestPlain: a wrong type is said in the words of the file, and not of this program.
func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		`version = "9"`: "f.toml:1: version is a TOML string: want a whole number, without quotes",
		`name = 9`:      "f.toml:1: name is a TOML integer: want a text in quotes",
		`on = "true"`:   "f.toml:1: on is a TOML string: want true or false, without quotes",
		`list = "x"`:    "f.toml:1: list is a TOML string: want a list in [ ]",
	} {
		var v struct {
			Version uint64   `toml:"version"`
			Name    string   `toml:"name"`
			On      bool     `toml:"on"`
			List    []string `toml:"list"`
		}
		if _, err := Decode("f.toml", []byte(text), &v); err == nil || err.Error() != want || strings.Contains(err.Error(), "struct") {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
