package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// How often services are asked whether they answer: often until they do, then as a watch.
const (
	probeEvery   = 500 * time.Millisecond
	probeTimeout = 3 * time.Second
	sshdEvery    = 30 * time.Second // each probe costs sshd a process
	unboundEvery = 15 * time.Second
	tunnelEvery  = time.Second
)

// probeSSH wants sshd's greeting.
func probeSSH(ctx context.Context, at netip.AddrPort) (err error) {
	d := net.Dialer{Timeout: probeTimeout}
	c, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("asking sshd: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return fmt.Errorf("asking sshd: %w", err)
	}
	greeting := make([]byte, 8)
	n, err := c.Read(greeting)
	if err != nil {
		return fmt.Errorf("asking sshd: %w", err)
	}
	if !bytes.HasPrefix(greeting[:n], []byte("SSH-2.0-")) {
		return errors.New("asking sshd: it does not greet")
	}
	return nil
}

// probeResolver wants an answer about a name that the resolver holds itself. It asks from the tunnel's address, as clients do.
func probeResolver(ctx context.Context, at netip.AddrPort) (err error) {
	d := net.Dialer{Timeout: probeTimeout, LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), 0))}
	c, err := d.DialContext(ctx, "udp", at.String())
	if err != nil {
		return fmt.Errorf("asking unbound: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return fmt.Errorf("asking unbound: %w", err)
	}
	const id = 0x6d66
	q := dnsmessage.Message{
		Header: dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName("localhost."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
		}},
	}
	packet, err := q.Pack()
	if err != nil {
		return fmt.Errorf("asking unbound: %w", err)
	}
	if _, err := c.Write(packet); err != nil {
		return fmt.Errorf("asking unbound: %w", err)
	}
	answer := make([]byte, 512)
	n, err := c.Read(answer)
	if err != nil {
		return fmt.Errorf("asking unbound: %w", err)
	}
	var p dnsmessage.Parser
	h, err := p.Start(answer[:n])
	if err != nil {
		return fmt.Errorf("asking unbound: %w", err)
	}
	if h.ID != id || !h.Response || h.RCode != dnsmessage.RCodeSuccess {
		return fmt.Errorf("asking unbound: it answers %s", h.RCode)
	}
	return nil
}

// watchService asks probe again and again and tells the supervisor. changed is called when the state did.
func (m *machine) watchService(ctx context.Context, name string, every time.Duration, probe func(context.Context) error) {
	for {
		before := m.sup.state(name)
		m.sup.answered(name, probe(ctx))
		now := m.sup.state(name)
		if before != now {
			m.poke()
		}
		pause := probeEvery
		if now == stateRunning {
			pause = every
		}
		if !m.sleepOrChange(ctx, name, pause) {
			return
		}
	}
}

// sleepOrChange ends early when the service is no longer running, so that a restart is seen soon.
func (m *machine) sleepOrChange(ctx context.Context, name string, d time.Duration) bool {
	end := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(end) {
		if !sleep(ctx, min(left, probeEvery)) {
			return false
		}
		if d > probeEvery && m.sup.state(name) != stateRunning {
			return true
		}
	}
	return ctx.Err() == nil
}
