package client

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mayfly/tunnel/device"
)

// How an old session is left.
const (
	lingerIdle  = 3 * time.Second // no connection and no traffic for so long: nothing is lost
	lingerLook  = time.Second
	lingerBound = 10 * time.Minute // where the server named no deadline
)

// leave waits until nothing uses an old session any more, or its server goes, and ends it.
func (c *client) leave(ctx context.Context, s *session, deadline time.Time) {
	if deadline.IsZero() {
		deadline = time.Now().Add(lingerBound)
	}
	if s.cancel != nil {
		s.cancel()
	}
	var meter device.Meter
	for time.Now().Before(deadline) && s.inUse(&meter, time.Now()) {
		if !wait(ctx, lingerLook) {
			break
		}
	}
	if err := c.end(s, true); err != nil {
		c.log.Warn("cleaning up an old session", "error", err)
	}
	c.tell(Event{Event: "left", Server: s.grant.server.Name, Interface: s.slot.name()})
}

func (s *session) inUse(m *device.Meter, now time.Time) bool {
	states, err := s.dev.Peers()
	if err != nil {
		return false
	}
	m.Note(states[s.grant.public], now, lingerIdle)
	return m.IdleFor(now) < lingerIdle || connections(s.grant.address)
}

// connections tells whether this machine has TCP connections from an inner address. Where the kernel does not say, traffic alone
// decides.
func connections(inner netip.Addr) bool {
	sockets, err := netlink.SocketDiagTCP(unix.AF_INET)
	interrupted := errors.Is(err, netlink.ErrDumpInterrupted) // the answer may lack some: look again before believing it
	if err != nil && !interrupted {
		return false
	}
	for _, s := range sockets {
		a, ok := netip.AddrFromSlice(s.ID.Source)
		if !ok || a.Unmap() != inner {
			continue
		}
		switch s.State {
		case netlink.TCP_TIME_WAIT, netlink.TCP_CLOSE, netlink.TCP_LISTEN:
		default:
			return true
		}
	}
	return interrupted
}
