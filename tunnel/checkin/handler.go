package checkin

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
)

// Handler answers GET PathServers with the file at path, a Signed that fleetctl serve keeps fresh. Everybody gets the same bytes.
// It reads the file when it has changed, parses nothing of the request, and logs nothing; the
// http.Server around it must have an ErrorLog that discards, because its own names the clients.
func Handler(path string) http.Handler {
	list := &served{path: path}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathServers, func(w http.ResponseWriter, r *http.Request) {
		body, err := list.body()
		if err != nil {
			http.Error(w, "there is no server list at present", http.StatusServiceUnavailable)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		if _, err := w.Write(body); err != nil {
			return // the app went away
		}
	})
	return mux
}

// served is the list as it was read last. Who writes the file replaces it, so that its inode tells one list from the next.
type served struct {
	path string

	mu   sync.Mutex
	of   os.FileInfo
	last []byte
}

// body is the newest list. It belongs to everybody: nobody writes to it.
func (s *served) body() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	if !same(s.of, info) {
		if s.last, s.of, err = readList(s.path); err != nil {
			s.of = nil
			return nil, err
		}
	}
	return s.last, nil
}

func same(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func readList(path string) ([]byte, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat() // before it is read: what changes meanwhile is read again
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil, errors.Join(errors.New("the list's file is no file"), err) // a pipe would hold every app's request
	}
	body, err := io.ReadAll(io.LimitReader(f, maxSigned+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) == 0 || len(body) > maxSigned {
		return nil, nil, errors.New("the list's file is empty or too large")
	}
	return body, info, nil
}
