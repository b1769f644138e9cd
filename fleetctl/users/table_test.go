package users

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestParse: all four are named, by keys that there are; three different users, none of them root.
func TestParse(t *testing.T) {
	good := "signer = \"54101\"\nserve = \"54102\"\ncheckin = \"54103\"\ngroup = \"54100\"\n"
	for _, tt := range []struct{ name, from, to, want string }{
		{"good", "", "", ""},
		{"nobody serves", "serve = \"54102\"\n", "", "serve is not said"},
		{"an unknown key", "group", "groups", "groups"},
		{"one user twice", "54102", "54101", "one user"},
		{"root", "54103", "0", "one user"},
		{"root's group", "54100", "0", "root's"},
		{"no such user", "54101", "mayfly-nobody-of-that-name", "the user of signer"},
		{"a number", "\"54101\"", "54101", "users.toml:1"},
	} {
		c, err := Parse(File, []byte(strings.Replace(good, tt.from, tt.to, 1)))
		if err == nil {
			_, err = c.Resolve()
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if got := (Table{Separate: true}).RoleOf(0); got != Nobody {
		t.Errorf("the zero table knows root as %q", got)
	}
}

// TestLoadLink: a link in the file's place is believed by nobody.
func TestLoadLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, File)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("got nil, want an error")
	}
}
