package main

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestKernelTakesRules puts the rules into the kernel, in a network namespace of its own, twice: the second time replaces.
func TestKernelTakesRules(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with this goroutine, and the namespace with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("making a network namespace: %v", err)
			return
		}
		rulesInKernel(t)
	}()
	<-done
}

func rulesInKernel(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Error(err)
		return
	}
	tunnel := netip.MustParseAddr("10.64.1.1")
	c := new(nftables.Conn)
	for _, bastions := range [][]netip.Addr{{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.3")}, {netip.MustParseAddr("10.77.0.2")}} {
		want := hostRules(bastions, tunnel)
		if err := applyRules(c, want); err != nil {
			t.Error(err)
			return
		}
		chains, err := c.ListChains()
		if err != nil || len(chains) != 1 || chains[0].Policy == nil || *chains[0].Policy != nftables.ChainPolicyDrop {
			t.Errorf("chains %+v, %v; want one that drops", chains, err)
			return
		}
		got, err := c.GetRules(chains[0].Table, chains[0])
		if err != nil || len(got) != len(want) {
			t.Errorf("the kernel has %d rules, %v; want %d", len(got), err, len(want))
		}
	}
	// Loopback still works, so the filter does not stop a server's own programs.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	d, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
	if err != nil {
		t.Errorf("loopback: %v", err)
		return
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
