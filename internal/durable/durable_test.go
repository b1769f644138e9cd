package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mayfly/internal/hint"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for i, want := range []string{"first", "second and longer", ""} {
		perm := os.FileMode(0o600 | i)
		if err := WriteFile(path, []byte(want), perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("content: got %q, %v, want %q", got, err, want)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != perm {
			t.Errorf("mode: got %v, %v, want %v", info.Mode(), err, perm)
		}
	}
	// A directory cannot be replaced by a file: nothing is left behind.
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), []byte("x"), 0o600); err == nil {
		t.Error("writing over a directory: got nil, want an error")
	}
	if err := WriteFile(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil {
		t.Error("writing into no directory: got nil, want an error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("directory: got %v, %v, want f and d alone", entries, err)
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int, perm os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := WriteFile(path, bytes.Repeat([]byte("k"), size), perm); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", MaxSecret, 0o600)
	if got, err := ReadSecret(good); err != nil || len(got) != MaxSecret {
		t.Fatalf("good file: got %d bytes, %v", len(got), err)
	}
	if got, err := ReadSecret(write("readonly", 3, 0o400)); err != nil || string(got) != "kkk" {
		t.Errorf("read-only file: got %q, %v", got, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "missing"), "no such file"},
		{"symbolic link", link, "symbolic link"},
		{"directory", dir, "not a regular file"},
		{"pipe", pipe, "not a regular file"},
		{"too long", write("long", MaxSecret+1, 0o600), "longer than"},
		{"group may read", write("g", 3, 0o640), "mode 0640"},
		{"others may read", write("o", 3, 0o604), "mode 0604"},
		{"others may write", write("w", 3, 0o602), "mode 0602"},
	}
	if os.Geteuid() == 0 {
		other := write("other", 3, 0o600)
		if err := os.Chown(other, 12345, -1); err != nil {
			t.Fatal(err)
		}
		tests = append(tests, struct{ name, path, want string }{"another owner", other, "belongs to user 12345"})
	}
	for _, tt := range tests {
		got, err := ReadSecret(tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(got) != 0 {
			t.Errorf("%s: got %q, %v, want an error with %q", tt.name, got, err, tt.want)
		}
		if hint.Of(err) == "" {
			t.Errorf("%s: got no hint", tt.name)
		}
	}
}
