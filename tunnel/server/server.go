package server

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
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// Timeouts and sizes of the HTTP servers.
const (
	headerLimit = 5 * time.Second // TLS handshake, and then the request's header
	readLimit   = 10 * time.Second
	writeLimit  = 10 * time.Second
	maxHeader   = 8 << 10
)

// Server is a running VPN server.
type Server struct {
	config  Config
	log     *slog.Logger
	public  device.Key
	device  *device.Device
	peers   *peers
	drain   *drain
	sources *sources // who registers
	ready   atomic.Bool
}

// Serve runs a server until ctx ends or a part of it fails, and takes away what it has set up in the kernel.
func Serve(ctx context.Context, c Config, log *slog.Logger) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	private, err := c.wireguardKey()
	if err != nil {
		return err
	}
	certificate, err := loadCertificate(c.Certificate, c.Key, log)
	if err != nil {
		return err
	}
	control, err := listenControl(c.Control)
	if err != nil {
		return err
	}
	defer control.Close()
	register, err := net.Listen("tcp", c.Register)
	if err != nil {
		return listenError("registration", c.Register, err)
	}
	defer register.Close()
	dev, err := device.New(device.Config{Name: Interface, PrivateKey: private, Port: c.Listen.Port()})
	if err != nil {
		return listenError("WireGuard", c.Listen.String(), err)
	}
	defer dev.Close()
	// The firewall stands before anything is forwarded, and until nothing is.
	before, err := lookForwarding()
	if err != nil {
		return err
	}
	if err := firewall(c); err != nil {
		return err
	}
	defer func() {
		restoreErr := before.restore()
		dev.Close()
		if restoreErr == nil { // else the table stays: it lets nothing pass
			restoreErr = removeFirewall()
		}
		err = errors.Join(err, restoreErr)
	}()
	if err := raise(c); err != nil {
		return err
	}
	at := netip.AddrPortFrom(c.Address(), inventory.PortNotice).String()
	notice, err := net.Listen("tcp", at)
	if err != nil {
		return listenError("notices", at, err)
	}
	defer notice.Close()

	s := &Server{
		config: c, log: log, public: private.Public(), device: dev,
		peers: newPeers(dev, c.Network), drain: newDrain(), sources: newSources(MaxConnections, MaxConnectionsPerSource),
	}
	return s.run(ctx, certificate, register, notice, control)
}

func (s *Server) run(ctx context.Context, cert *certificate, register, notice, control net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	tlsConfig := cert.tlsConfig()
	serve(ctx, group, s.outside(), writeLimit, tls.NewListener(limited{register, s.sources}, tlsConfig))
	serve(ctx, group, s.inside(), wire.NoticeHold+writeLimit, tls.NewListener(limited{notice, insideSources(s.config.Network)}, tlsConfig))
	serve(ctx, group, s.control(), writeLimit, control)
	group.Go(func() error { return s.sweep(ctx) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-s.device.Wait():
			return fmt.Errorf("the interface %s is gone", Interface)
		}
	})
	s.ready.Store(true)
	s.log.Info("ready", "server", s.config.Name)
	err := group.Wait()
	s.log.Info("stopped", "server", s.config.Name)
	return err
}

// serve runs an HTTP server in group until ctx ends. Its own log is discarded: it would name clients.
func serve(ctx context.Context, group *errgroup.Group, h http.Handler, write time.Duration, l net.Listener) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerLimit,
		ReadTimeout:       readLimit,
		WriteTimeout:      write,
		IdleTimeout:       readLimit,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
}

// sweep lets peers go whose time is up, and sees when a drain is done.
func (s *Server) sweep(ctx context.Context) error {
	ticker := time.NewTicker(SweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			inFlight, err := s.peers.sweep(now)
			if err != nil {
				return err
			}
			s.sources.sweep(now)
			if s.drain.look(inFlight, now) {
				_, _, forced := s.drain.state()
				s.log.Info("drained", "server", s.config.Name, "forced", forced)
			}
		}
	}
}

func (s *Server) beginDrain(limit time.Duration) {
	s.peers.close()
	s.drain.begin(limit, time.Now())
	s.log.Info("draining", "server", s.config.Name, "limit", limit)
}

func listenError(what, address string, err error) error {
	err = fmt.Errorf("listening for %s at %s: %w", what, address, err)
	if errors.Is(err, syscall.EADDRINUSE) {
		return hint.New(err, "another program has the port: stop it, or choose another one")
	}
	return err
}
