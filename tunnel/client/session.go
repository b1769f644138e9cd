package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/tunnel/device"
)

// Times of a session.
const (
	probeLimit   = 10 * time.Second // first connection through the tunnel
	dialLimit    = 5 * time.Second  // later ones
	silence      = 20 * time.Second // of a server that should acknowledge: it is gone
	releaseLimit = 2 * time.Second
)

// session is one registered key with its interface, table and rule.
type session struct {
	grant grant
	dev   *device.Device
	slot  slot
	http  *http.Client // through this session, to its server

	cancel context.CancelFunc // ends the watcher
	signal <-chan signal      // what the watcher heard
	once   sync.Once
	closed error
}

// open sets a session up beside those that exist: no route leads into it yet.
func (c *client) open(ctx context.Context, g grant) (*session, error) {
	slot, err := c.slots.take()
	if err != nil {
		return nil, err
	}
	dev, err := device.New(device.Config{Name: slot.name(), PrivateKey: g.private, Mark: Mark})
	if err != nil {
		c.slots.free(slot)
		return nil, err
	}
	s := &session{grant: g, dev: dev, slot: slot}
	err = dev.AddPeer(device.Peer{
		PublicKey: g.public, Preshared: g.preshared, Endpoint: g.endpoint, Keepalive: g.keepalive,
		Allowed: []netip.Prefix{everything4},
	})
	if err == nil {
		err = slot.raise(g)
	}
	if err == nil {
		s.http = httpClient(c.options.Config, g.server, s.dial)
		err = s.probe(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the tunnel to %s: %w", g.server.Name, err), c.close(s))
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.signal = s.watch(ctx, &c.running)
	return s, nil
}

// probe makes a connection through the tunnel, so that a session which does not carry is never switched to.
func (s *session) probe(ctx context.Context) error {
	conn, err := s.dialer(probeLimit).DialContext(ctx, "tcp", s.grant.notice.String())
	if err != nil {
		return fmt.Errorf("nothing comes through: %w", err)
	}
	return conn.Close()
}

// dial connects from the session's inner address, so that its rule sends it through its own interface.
func (s *session) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return s.dialer(dialLimit).DialContext(ctx, network, address)
}

// dialer makes connections that notice it when the other end is gone without a word.
func (s *session) dialer(limit time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:         limit,
		LocalAddr:       &net.TCPAddr{IP: s.grant.address.AsSlice()},
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 2},
		Control:         socketOption(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence/time.Millisecond)),
	}
}

// event describes the session.
func (s *session) event(kind string) Event {
	return Event{
		Event: kind, Server: s.grant.server.Name, Region: s.grant.server.Region,
		Address: s.grant.address, DNS: s.grant.dns, Interface: s.slot.name(),
	}
}

// end gives the session back if its server still listens, and closes it.
func (c *client) end(s *session, tell bool) error {
	if s.cancel != nil {
		s.cancel()
	}
	if tell {
		ctx, cancel := context.WithTimeout(context.Background(), releaseLimit)
		if err := release(ctx, s.http, s.grant); err != nil {
			c.log.Debug("the server was not told", "server", s.grant.server.Name)
		}
		cancel()
	}
	return c.close(s)
}

// close takes everything of a session away: its interface, and with it the routes, and its rule.
func (c *client) close(s *session) error {
	s.once.Do(func() {
		if s.cancel != nil {
			s.cancel()
		}
		s.closed = s.slot.lower(s.grant)
		s.dev.Close()
		c.slots.free(s.slot)
	})
	return s.closed
}
