package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/expfmt"

	"mayfly/internal/hint"
)

// Path is where the numbers are.
const Path = "/metrics"

// Implementation constants of publishing.
const (
	deadline   = 30 * time.Second // of a whole request
	maxHeader  = 8 << 10          // bytes
	maxReaders = 8                // connections at a time; the rest are closed
)

// Listen opens what fleet.toml's controller.metrics names: an address, or a socket's path.
func Listen(ctx context.Context, at string) (net.Listener, error) {
	if !filepath.IsAbs(at) {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
		if err != nil {
			return nil, hint.New(fmt.Errorf("publishing metrics on %s: %w", at, err), "another program may have the port that controller.metrics names")
		}
		return l, nil
	}
	if info, err := os.Lstat(at); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, hint.New(fmt.Errorf("publishing metrics on %s: there is something else", at), "see what lies there: ls -l %s", at)
	} else if err == nil {
		if conn, err := net.DialTimeout("unix", at, time.Second); err == nil {
			return nil, errors.Join(hint.New(fmt.Errorf("publishing metrics on %s: somebody listens there", at), "is another `fleetctl serve` running?"), conn.Close())
		}
		if err := os.Remove(at); err != nil {
			return nil, fmt.Errorf("publishing metrics on %s: %w", at, err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", at)
	if err != nil {
		return nil, hint.New(fmt.Errorf("publishing metrics on %s: %w", at, err), "its directory has to be there, and this user's")
	}
	// The group of the directory decides who comes as far as here.
	if err := os.Chmod(at, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("publishing metrics on %s: %w", at, err), l.Close())
	}
	return l, nil
}

// Serve publishes until ctx ends. Beside loopback and a socket's peers, only the networks in allow are answered.
func (m *Metrics) Serve(ctx context.Context, l net.Listener, allow []netip.Prefix, log *slog.Logger) error {
	server := &http.Server{
		Handler: m.Handler(log), ReadTimeout: deadline, ReadHeaderTimeout: deadline, WriteTimeout: deadline,
		IdleTimeout: deadline, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(&bounded{Listener: l, places: make(chan struct{}, maxReaders), may: readers(allow)})
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("publishing metrics: %w", err)
}

// readers decides on who connects.
func readers(allow []netip.Prefix) func(net.Addr) bool {
	return func(from net.Addr) bool {
		tcp, ok := from.(*net.TCPAddr)
		if !ok {
			return true
		}
		a := tcp.AddrPort().Addr().Unmap()
		return a.IsLoopback() || slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(a) })
	}
}

// Handler answers GET and HEAD of Path, and nothing else. Nothing that is asked changes anything.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != Path:
			http.NotFound(w, r)
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "read only", http.StatusMethodNotAllowed)
			return
		}
		families, err := m.registry.Gather()
		format := expfmt.NewFormat(expfmt.TypeTextPlain)
		var body bytes.Buffer
		if err == nil {
			encoder := expfmt.NewEncoder(&body, format)
			for _, f := range families {
				err = errors.Join(err, encoder.Encode(f))
			}
		}
		if err != nil {
			log.Error("gathering metrics", "error", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(format))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if _, err := w.Write(body.Bytes()); err != nil {
			log.Debug("sending metrics", "error", err)
		}
	})
}

// bounded closes at once who comes when all places are taken, or may not read.
type bounded struct {
	net.Listener
	places chan struct{}
	may    func(net.Addr) bool
}

func (l *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.may(conn.RemoteAddr()) {
			select {
			case l.places <- struct{}{}:
				return &placed{Conn: conn, leave: l.places}, nil
			default:
			}
		}
		conn.Close()
	}
}

// placed gives its place back when it is closed.
type placed struct {
	net.Conn
	leave <-chan struct{}
	left  atomic.Bool
}

func (c *placed) Close() error {
	if !c.left.Swap(true) {
		<-c.leave
	}
	return c.Conn.Close()
}
