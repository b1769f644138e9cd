package bastion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/expfmt"

	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
)

// Implementation constants of publishing metrics.
const (
	metricsPath        = "/metrics"
	metricsDeadline    = 10 * time.Second // of a whole request
	maxMetricsHeader   = 8 << 10          // bytes
	maxMetricsReaders  = 8                // connections at a time; the rest are closed
	maxMetricsPrefixes = 64
)

// Metrics is where numbers are published: an address, or a socket's path.
type Metrics string

// address is where it listens, if that is no socket.
func (m Metrics) address() (netip.AddrPort, bool) {
	a, err := netip.ParseAddrPort(string(m))
	return a, err == nil
}

// isSocket says that it is a path.
func (m Metrics) isSocket() bool { return strings.HasSuffix(string(m), ".sock") }

// checkMetrics wants loopback or a socket, unless it is said who else may read.
func (c Config) checkMetrics(doc *tomlfile.Doc) error {
	const mend = `metrics = "127.0.0.1:9122", or "FILE.sock"`
	for i, p := range c.MetricsAllow {
		if !p.IsValid() || p != p.Masked() {
			return doc.Place(tomlfile.At(fmt.Sprintf("metrics_allow[%d]", i), "a prefix without bits after its length", "metrics_allow: prefix %s", p))
		}
	}
	address, ok := c.Metrics.address()
	switch {
	case c.Metrics == "" && len(c.MetricsAllow) > 0:
		return doc.Place(tomlfile.At("metrics_allow", mend, "metrics_allow without metrics"))
	case len(c.MetricsAllow) > maxMetricsPrefixes:
		return doc.Place(tomlfile.At("metrics_allow", "use wider prefixes", "metrics_allow: at most %d prefixes", maxMetricsPrefixes))
	case c.Metrics == "" || c.Metrics.isSocket():
		return nil
	case !ok || address.Addr().Zone() != "":
		return doc.Place(tomlfile.At("metrics", mend, "metrics %q is neither address and port nor a path that ends in .sock", string(c.Metrics)))
	case address.Addr().IsUnspecified():
		return doc.Place(tomlfile.At("metrics", mend, "metrics %s: one address, not all", address))
	case !address.Addr().Unmap().IsLoopback() && len(c.MetricsAllow) == 0:
		return doc.Place(tomlfile.At("metrics", `metrics_allow = ["10.77.0.9/32"] says who may read there`, "metrics %s is not on loopback", address))
	}
	return nil
}

// listenMetrics opens the listener, which must be before the bastion confines itself; nil where nothing is published.
func listenMetrics(ctx context.Context, c Config) (net.Listener, error) {
	switch {
	case c.Metrics == "":
		return nil, nil
	case c.Metrics.isSocket():
		return listenControl(string(c.Metrics))
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", string(c.Metrics))
	return l, hint.New(err, "another program may have the port that metrics names in bastion.toml")
}

// publishMetrics serves until ctx ends. Nothing that is asked changes anything.
func (s *Server) publishMetrics(ctx context.Context, l net.Listener) {
	server := &http.Server{
		Handler: http.HandlerFunc(s.answerMetrics), ReadTimeout: metricsDeadline, ReadHeaderTimeout: metricsDeadline, WriteTimeout: metricsDeadline,
		IdleTimeout: metricsDeadline, MaxHeaderBytes: maxMetricsHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	readers := &boundedListener{Listener: l, places: make(chan struct{}, maxMetricsReaders), may: s.mayRead}
	if err := server.Serve(readers); err != nil && !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		s.log.Error("metrics are no longer published", "error", err)
	}
}

// mayRead decides on who connects: loopback, a socket's peer, or a listed address.
func (s *Server) mayRead(from net.Addr) bool {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return true
	}
	a := tcp.AddrPort().Addr().Unmap()
	return a.IsLoopback() || slices.ContainsFunc(s.config.MetricsAllow, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (s *Server) answerMetrics(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != metricsPath:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "read only", http.StatusMethodNotAllowed)
		return
	}
	families, err := s.metrics.registry.Gather()
	if err != nil {
		s.log.Error("gathering metrics", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var body bytes.Buffer
	encoder := expfmt.NewEncoder(&body, format)
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			s.log.Error("writing metrics", "error", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", string(format))
	if _, err := w.Write(body.Bytes()); err != nil {
		s.log.Debug("sending metrics", "error", err)
	}
}

// boundedListener closes at once who comes when all places are taken, or may not read.
type boundedListener struct {
	net.Listener
	places chan struct{}
	may    func(net.Addr) bool
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.may(conn.RemoteAddr()) {
			select {
			case l.places <- struct{}{}:
				return &placedConn{Conn: conn, leave: l.places}, nil
			default:
			}
		}
		conn.Close()
	}
}

// placedConn gives its place back when it is closed.
type placedConn struct {
	net.Conn
	leave <-chan struct{}
	left  atomic.Bool
}

func (c *placedConn) Close() error {
	if !c.left.Swap(true) {
		<-c.leave
	}
	return c.Conn.Close()
}
