package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"mayfly/fleetctl/fleetlock"
	"mayfly/fleetctl/grant"
	"mayfly/fleetctl/metrics"
	"mayfly/fleetctl/omaha"
	"mayfly/fleetctl/signer"
	"mayfly/internal/hint"
	"mayfly/inventory"
)

// Implementation constants of the port where hosts ask.
const (
	hostsDeadline = 30 * time.Second // of a whole request
	hostsHeader   = 8 << 10          // bytes
	maxHostConns  = 256              // connections at a time
	hostPause     = time.Second      // between two requests of one host, once it has used up
	hostBurst     = 20
)

// serveHosts answers the hosts that ask whether they may restart, until ctx ends. A fleet without updates_port has none.
func (d state) serveHosts(ctx context.Context, p *policy, desk *grant.Desk, m *metrics.Metrics, log *slog.Logger) error {
	b := p.current()
	k := b.Inventory.Controller
	if k.UpdatesPort == 0 {
		return nil
	}
	at := netip.AddrPortFrom(k.Address, k.UpdatesPort).String()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		return hint.New(fmt.Errorf("listening for hosts: %w", err), "another process has %s, or the address is not this machine's", at)
	}
	cert, err := newCertificate(ctx, signer.Dial(string(d)), inventory.NameController, b.Inventory.FQDN(inventory.NameController))
	if err != nil {
		return errors.Join(needsSigner(err), l.Close())
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { cert.keep(keeping, log) })
	server := &http.Server{
		Handler:     hostsHandler(p, desk, m, log),
		ReadTimeout: hostsDeadline, ReadHeaderTimeout: hostsDeadline, WriteTimeout: hostsDeadline, IdleTimeout: hostsDeadline, MaxHeaderBytes: hostsHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	end := context.AfterFunc(ctx, func() { server.Close() })
	defer end()
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get, NextProtos: []string{"http/1.1"}}
	err = server.Serve(tls.NewListener(&hostsOnly{Listener: l, policy: p, places: make(chan struct{}, maxHostConns)}, config))
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("answering hosts: %w", err)
}

// hostsHandler answers both protocols. Whoever asks too often is told to wait.
func hostsHandler(p *policy, desk *grant.Desk, m *metrics.Metrics, log *slog.Logger) http.Handler {
	lock := &fleetlock.Service{Desk: desk, Hosts: func() []inventory.Server { f := p.current().Inventory; return f.Asking() },
		Asked: func(a string) { m.Asked(inventory.UpdatesFleetLock, a) }, Log: log}
	update := &omaha.Service{Desk: desk, Fleet: func() inventory.Fleet { return p.current().Inventory },
		Asked: func(a string) { m.Asked(inventory.UpdatesOmaha, a) }, Log: log}
	mux := http.NewServeMux()
	mux.Handle(fleetlock.PathPreReboot, lock.Handler())
	mux.Handle(fleetlock.PathSteadyState, lock.Handler())
	mux.Handle(omaha.Path, update.Handler())
	return limitHosts(mux, func() { m.Asked(inventory.UpdatesFleetLock, "limited") }, time.Now)
}

// limitHosts answers 429 to an address that has used up its burst.
func limitHosts(next http.Handler, limited func(), now func() time.Time) http.Handler {
	type allowance struct {
		used float64
		at   time.Time
	}
	var mu sync.Mutex
	hosts := map[netip.Addr]*allowance{} // of hosts alone, so as many as there are
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, "no address", http.StatusBadRequest)
			return
		}
		mu.Lock()
		a := hosts[from.Addr().Unmap()]
		if a == nil {
			a = &allowance{}
			hosts[from.Addr().Unmap()] = a
		}
		t := now()
		if d := t.Sub(a.at); d > 0 {
			a.used, a.at = max(a.used-float64(d)/float64(hostPause), 0), t
		}
		ok := a.used+1 <= hostBurst
		if ok {
			a.used++
		}
		mu.Unlock()
		if !ok {
			limited()
			w.Header().Set("Retry-After", "30")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprintln(w, `{"kind":"too_often","value":"ask again in half a minute"}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostsOnly closes at once who is no host that asks, and who comes when all places are taken.
type hostsOnly struct {
	net.Listener
	policy *policy
	places chan struct{}
}

func (l *hostsOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.may(conn.RemoteAddr()) {
			select {
			case l.places <- struct{}{}:
				return &hostConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
			default:
			}
		}
		conn.Close()
	}
}

// may reports whether a host of the policy in force has this address.
func (l *hostsOnly) may(from net.Addr) bool {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return false
	}
	a := tcp.AddrPort().Addr().Unmap()
	f := l.policy.current().Inventory
	for _, h := range f.Asking() {
		if h.Address.Addr() == a {
			return true
		}
	}
	return false
}

// hostConn gives its place back when it is closed.
type hostConn struct {
	net.Conn
	leave func()
}

func (c *hostConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
