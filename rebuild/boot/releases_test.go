package boot

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What lies in public/ is served if it is a file that a release has, and never waited for.
func TestReleases(t *testing.T) {
	dir := t.TempDir()
	release := filepath.Join(dir, "releases", "7")
	if err := os.MkdirAll(filepath.Join(release, "stub.cpio"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"release.json", "secret"} {
		if err := os.WriteFile(filepath.Join(release, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(release, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(release, "root.erofs"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	handler := releases(root, slog.New(slog.DiscardHandler))
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/releases/7/release.json", http.StatusOK},
		{"HEAD", "/releases/7/release.json", http.StatusOK},
		{"POST", "/releases/7/release.json", http.StatusMethodNotAllowed},
		{"GET", "/releases/7/release.json?x", http.StatusNotFound},
		{"GET", "/releases/7/secret", http.StatusNotFound},
		{"GET", "/releases/7/", http.StatusNotFound},
		{"GET", "/releases/07/release.json", http.StatusNotFound},
		{"GET", "/releases/7/../7/release.json", http.StatusNotFound},
		{"GET", "/releases/7%2frelease.json", http.StatusNotFound},
		{"GET", "/releases/7/stub.cpio", http.StatusNotFound},  // a directory
		{"GET", "/releases/7/vmlinuz", http.StatusNotFound},    // a link out
		{"GET", "/releases/7/root.erofs", http.StatusNotFound}, // a pipe that nobody writes
		{"GET", "/releases/8/release.json", http.StatusNotFound},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}
