package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// tagger is a switch with two ports for a machine's network devices, on which one VLAN is tagged, and a tap on that VLAN. Not every kernel that
// tests run on has VLANs of its own.
type tagger struct {
	vlan int
	dir  string
	tap  *os.File

	mu    sync.Mutex // guards the rest
	ports [2]net.Conn
	seen  [2]int // frames with the tag
	other int    // frames without
}

const (
	tagSize  = 4
	macSize  = 12      // both
	tagType  = 0x8100  // IEEE 802.1Q
	maxFrame = 1 << 16 // with QEMU's length before it
)

// makeTagger makes the tap, in the namespace that the thread is in.
func (n *network) makeTagger() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "vlan0"
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE, NonPersist: true, Queues: 1}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, err
	}
	n.tagger = &tagger{vlan: n.vlan, tap: tap.Fds[0]}
	return tap, netlink.LinkSetUp(tap)
}

// netdev is a port as QEMU's -netdev has it.
func (g *tagger) netdev(port int) string {
	return "stream,server=off,addr.type=unix,addr.path=" + g.socket(port)
}

func (g *tagger) socket(port int) string { return filepath.Join(g.dir, fmt.Sprint("port", port)) }

// serve switches until the test ends.
func (g *tagger) serve(t *testing.T) {
	t.Helper()
	var err error
	if g.dir, err = os.MkdirTemp("", "vlan"); err != nil { // a socket's path has at most 107 bytes
		t.Fatal(err)
	}
	var done sync.WaitGroup
	var listeners []net.Listener
	for port := range g.ports {
		l, err := net.Listen("unix", g.socket(port))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		done.Go(func() { g.fromPort(l, port) })
	}
	done.Go(g.fromTap)
	t.Cleanup(func() {
		errs := []error{g.tap.Close()}
		for _, l := range listeners {
			errs = append(errs, l.Close())
		}
		g.mu.Lock()
		for _, c := range g.ports {
			if c != nil {
				errs = append(errs, c.Close())
			}
		}
		g.mu.Unlock()
		done.Wait()
		if err := errors.Join(append(errs, os.RemoveAll(g.dir))...); err != nil {
			t.Error(err)
		}
		if g.seen[0]+g.seen[1] == 0 || g.other > 0 {
			t.Errorf("%d frames with the VLAN's tag, and %d without", g.seen, g.other)
		}
	})
}

// fromPort takes the tag off what a machine sends.
func (g *tagger) fromPort(l net.Listener, port int) {
	c, err := l.Accept()
	if err != nil {
		return // the test is over
	}
	g.mu.Lock()
	g.ports[port] = c
	g.mu.Unlock()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, min(binary.BigEndian.Uint32(size[:]), maxFrame))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		tagged := len(frame) > macSize+tagSize && binary.BigEndian.Uint16(frame[macSize:]) == tagType && int(binary.BigEndian.Uint16(frame[macSize+2:])&0xfff) == g.vlan
		g.mu.Lock()
		if tagged {
			g.seen[port]++
		} else {
			g.other++
		}
		g.mu.Unlock()
		if tagged {
			g.tap.Write(append(frame[:macSize:macSize], frame[macSize+tagSize:]...)) // a frame may be lost
		}
	}
}

// fromTap sends with the tag what the controller sends, to both ports: of a bond one listens.
func (g *tagger) fromTap() {
	frame := make([]byte, maxFrame)
	for {
		n, err := g.tap.Read(frame)
		if err != nil {
			return
		}
		if n < macSize {
			continue
		}
		out := binary.BigEndian.AppendUint32(nil, uint32(n+tagSize))
		out = append(out, frame[:macSize]...)
		out = binary.BigEndian.AppendUint16(out, tagType)
		out = binary.BigEndian.AppendUint16(out, uint16(g.vlan))
		out = append(out, frame[macSize:n]...)
		g.mu.Lock()
		for _, c := range g.ports {
			if c != nil {
				c.Write(out) // a frame may be lost
			}
		}
		g.mu.Unlock()
	}
}
