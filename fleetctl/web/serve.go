package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"mayfly/internal/hint"
)

// Bounds of the service. Implementation constants.
const (
	maxConnections = 256
	maxPerAddress  = 32
	maxHeader      = 16 << 10
	headerDeadline = 10 * time.Second
	writeDeadline  = 30 * time.Second // of a page; live updates set their own
	idleDeadline   = 2 * time.Minute
	stopDeadline   = 5 * time.Second
	maxStreams     = 64 // requests at once of one connection
)

// Config is what Serve needs.
type Config struct {
	Own     tls.Certificate // of P-256: browsers take no Ed25519
	Access  Access
	Gather  func(context.Context) (View, error)           // the fleet as it is now; called while somebody looks, never twice at once
	Proof   func(server string) (proof []byte, err error) // that the ledger has the server's life; may be nil
	BootURL string                                        // where anybody reads the ledger: "http://192.0.2.1:8080/"
	Log     *slog.Logger
}

// Serve shows the page on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, c Config) error {
	if c.Access.Record == nil || c.Access.Policy == nil || c.Access.Now == nil || c.Gather == nil {
		panic("web: internal error: a page without its rules")
	}
	server := &http.Server{
		Handler:           c.Access.guard(Handler(c)),
		ReadHeaderTimeout: headerDeadline,
		ReadTimeout:       headerDeadline,
		WriteTimeout:      writeDeadline,
		IdleTimeout:       idleDeadline,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          log.New(io.Discard, "", 0), // strangers' handshakes: what counts is on record
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey, newConnection())
		},
	}
	secured := tls.NewListener(newPerAddress(netutil.LimitListener(l, maxConnections)), c.Access.config(c.Own))
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopDeadline)
		defer cancel()
		if server.Shutdown(stop) != nil {
			server.Close()
		}
	})
	err := server.Serve(secured)
	close(done)
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the page: %w", err)
}

// Listen opens the page's port.
func Listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, hint.New(fmt.Errorf("listening on %s for the page: %w", address, err), "page_port of [controller] has to be free, and its address this machine's")
	}
	return l, nil
}

// Handler is the page for whoever was let in already.
func Handler(c Config) http.Handler {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &site{
		feed:    newFeed(c.Gather, time.Now, func(err error) { log.Warn("the page shows old numbers", "error", err) }),
		proof:   c.Proof,
		bootURL: c.BootURL,
	}
}

// perAddress closes connections of an address that has enough.
type perAddress struct {
	net.Listener
	mu   sync.Mutex // guards open
	open map[string]int
}

func newPerAddress(l net.Listener) *perAddress {
	return &perAddress{Listener: l, open: map[string]int{}}
}

// Accept returns the next connection of an address that may have one more.
func (p *perAddress) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
		if err == nil && p.enter(host) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { p.leave(host) })}, nil
		}
		conn.Close()
	}
}

func (p *perAddress) enter(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[host] >= maxPerAddress {
		return false
	}
	p.open[host]++
	return true
}

func (p *perAddress) leave(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[host]--; p.open[host] == 0 {
		delete(p.open, host)
	}
}

type counted struct {
	net.Conn
	leave func()
}

// Close gives the place back, once.
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
