package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/tunnel/wire"
)

// Paths of the control socket.
const (
	PathStatus = "/status" // GET → Status
	PathDrain  = "/drain"  // POST DrainOrder → Status
)

// Status is what mayfly-init reads.
type Status struct {
	Ready    bool `json:"ready"`
	Peers    int  `json:"peers"`
	Draining bool `json:"draining"`
	Drained  bool `json:"drained"`
	Forced   bool `json:"forced"` // the bound passed with something still in flight
}

// DrainOrder begins a drain. Limit is from 0 to policies.MaxDrain.
type DrainOrder struct {
	Limit time.Duration `json:"limit_ns"`
}

func (s *Server) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(PathStatus, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			refuse(w, wire.WrongMethod)
			return
		}
		answer(w, http.StatusOK, s.status())
	})
	mux.HandleFunc(PathDrain, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			refuse(w, wire.WrongMethod)
			return
		}
		var order DrainOrder
		if reason := read(r, &order); reason != "" {
			refuse(w, reason)
			return
		}
		if order.Limit < 0 || order.Limit > policies.MaxDrain {
			refuse(w, wire.Malformed)
			return
		}
		s.beginDrain(order.Limit)
		answer(w, http.StatusOK, s.status())
	})
	mux.HandleFunc("/", unknown)
	return mux
}

func (s *Server) status() Status {
	draining, drained, forced := s.drain.state()
	return Status{Ready: s.ready.Load(), Peers: s.peers.count(), Draining: draining, Drained: drained, Forced: forced}
}

// listenControl makes the socket, 0600. A socket that a killed server left is replaced; one that answers is not.
func listenControl(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		return nil, hint.New(errors.Join(fmt.Errorf("the control socket %s is in use", path), c.Close()), "another tunnel server runs here: stop it first")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replacing the control socket: %w", err)
	}
	// Nobody else may connect between the bind and the chmod: the directory is 0700, or the caller's own choice.
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("closing the control socket to others: %w", err), l.Close())
	}
	return l, nil
}
