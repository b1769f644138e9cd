package durable

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A pipe that somebody laid in a file's place stops nobody.
func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	file, pipe, link := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRegular(file, 5); err != nil || string(got) != "12345" {
		t.Errorf("%q, %v", got, err)
	}
	for _, tt := range []struct{ path, want string }{
		{file, "larger than 4 bytes"}, {pipe, "not a regular file"}, {link, "not a regular file"}, {dir, "not a regular file"}, {filepath.Join(dir, "none"), "no such file"}, {"/dev/zero", "not a regular file"},
	} {
		if got, err := ReadRegular(tt.path, 4); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.path, got, err, tt.want)
		}
	}
}
