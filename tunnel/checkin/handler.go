package checkin

import (
	"errors"
	"io"
	"net/http"
	"os"
	"syscall"
)

// Handler answers GET PathServers with the file at path, a Signed that fleetctl serve keeps fresh. Everybody gets the same bytes.
// It reads the file each time (it is small, and then always the newest), parses nothing of the request, and logs nothing; the
// http.Server around it must have an ErrorLog that discards, because its own names the clients.
func Handler(path string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathServers, func(w http.ResponseWriter, r *http.Request) {
		body, err := readList(path)
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

func readList(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errors.New("the list's file is no file"), err) // a pipe would hold every app's request
	}
	body, err := io.ReadAll(io.LimitReader(f, maxSigned+1))
	if err != nil {
		return nil, err
	}
	if len(body) == 0 || len(body) > maxSigned {
		return nil, errors.New("the list's file is empty or too large")
	}
	return body, nil
}
