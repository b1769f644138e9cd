package boot

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"syscall"
	"time"

	"mayfly/rebuild/release"
)

// releasePath is the only form of path that the boot port knows.
var releasePath = regexp.MustCompile(`^/releases/([1-9][0-9]{0,18})/([a-z.]{1,32})$`)

var releaseFiles = map[string]bool{
	release.StatementFile:  true,
	release.SignaturesFile: true,
	release.ProofFile:      true,
	release.KernelFile:     true,
	release.StubFile:       true,
	release.RootFile:       true,
	release.LockFile:       true,
	release.UKIFile:        true,
	release.SignedUKIFile:  true,
	release.SBOMFile:       true,
	release.ProvenanceFile: true,
}

// withPublic adds the public files to the join port. Its certificate is of the fleet's CA, for the controller's address too: a ticket may name it
// as a mirror, "https://ADDRESS:PORT/".
func withPublic(admission, public http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", admission)
	mux.HandleFunc("/releases/", func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(releaseDeadline)); err != nil {
			http.Error(w, "no deadline", http.StatusInternalServerError)
			return
		}
		public.ServeHTTP(w, r)
	})
	return mux
}

// releases serves the files of releases, the ledger and the trust policies below root, and lists nothing. os.Root keeps symbolic links inside.
func releases(root *os.Root, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name, ok := publicFile(r.URL.EscapedPath())
		if !ok || r.URL.RawQuery != "" {
			http.NotFound(w, r)
			return
		}
		f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe keeps nobody waiting
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				log.Warn("opening a public file", "path", r.URL.Path, "error", err)
			}
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "no-store")
		http.ServeContent(w, r, "", info.ModTime(), f)
	})
}
