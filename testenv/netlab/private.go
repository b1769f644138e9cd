package netlab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Private is a network namespace without a name and with nothing but loopback: it goes away with the last process in it and the last
// one that holds it, however they end.
type Private struct{ handle netns.NsHandle }

// NewPrivate makes a namespace. Close lets go of it.
func NewPrivate() (*Private, error) {
	p := &Private{handle: netns.None()}
	err := onThread(func() (err error) {
		if p.handle, err = netns.New(); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		loopback, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(loopback)
		}
		if err != nil {
			return fmt.Errorf("setting loopback up: %w", err)
		}
		return nil
	})
	if err != nil && p.handle.IsOpen() {
		p.handle.Close()
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Close lets go of the namespace; what runs in it keeps it.
func (p *Private) Close() error { return p.handle.Close() }

// Do runs f on an operating system thread inside the namespace. Goroutines that f starts are outside of it.
func (p *Private) Do(f func() error) error { return inside(p.handle, "private", f) }
