package boot

import (
	"io"
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
	for _, name := range []string{"ledger/checkpoint", "ledger/checkpoint.witnessed", "ledger/lock", "ledger/journal/0", "ledger/tile/0/000", "ledger/tile/entries/x001/234.p/17",
		"ledger/tile/entries/evil", "trust/1.json", "trust/2.json.sig", "trust/notes", "client.json"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
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
		{"GET", "/ledger/checkpoint", http.StatusOK},
		{"GET", "/ledger/checkpoint.witnessed", http.StatusOK},
		{"GET", "/ledger/tile/0/000", http.StatusOK},
		{"GET", "/ledger/tile/entries/x001/234.p/17", http.StatusOK},
		{"GET", "/ledger/tile/entries/x001/235", http.StatusNotFound},
		{"GET", "/ledger/tile/entries/evil", http.StatusNotFound},
		{"GET", "/ledger/lock", http.StatusNotFound},
		{"GET", "/ledger/journal/0", http.StatusNotFound},
		{"GET", "/ledger/", http.StatusNotFound},
		{"GET", "/trust/1.json", http.StatusOK},
		{"GET", "/trust/2.json.sig", http.StatusOK},
		{"GET", "/trust/notes", http.StatusNotFound},
		{"GET", "/client.json", http.StatusNotFound}, // apps get it elsewhere
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

// Over TLS, the join port serves what the boot port does, and the rest stays with who admits.
func TestReleasesOverTLS(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "releases", "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "releases", "7", "release.json.proof"), []byte("proof"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	admission := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	server := httptest.NewUnstartedServer(withPublic(admission, releases(root, slog.New(slog.DiscardHandler))))
	server.Config.WriteTimeout = requestDeadline
	server.StartTLS()
	defer server.Close()
	for path, want := range map[string]int{
		"/releases/7/release.json.proof": http.StatusOK, "/releases/7/secret": http.StatusNotFound, "/v1/join": http.StatusTeapot,
	} {
		res, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if res.Body.Close(); err != nil || res.StatusCode != want || want == http.StatusOK && string(body) != "proof" {
			t.Errorf("%s: %d %q, %v, want %d", path, res.StatusCode, body, err, want)
		}
	}
}
