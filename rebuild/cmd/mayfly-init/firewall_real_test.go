package main

import (
	"errors"
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
		if err != nil || len(chains) != 2 || chains[0].Policy == nil || *chains[0].Policy != nftables.ChainPolicyDrop {
			t.Errorf("chains %+v, %v; want one that drops, and output", chains, err)
			return
		}
		for i, want := range [][]pass{want, sendRules()} {
			got, err := c.GetRules(chains[i].Table, chains[i])
			if err != nil || len(got) != len(want) {
				t.Errorf("%s: the kernel has %d rules, %v; want %d", chains[i].Name, len(got), err, len(want))
			}
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
	if c, err := l.Accept(); err != nil {
		t.Error(err)
	} else if err := c.Close(); err != nil {
		t.Error(err)
	}
	engineersSendNothing(t, l.(*net.TCPListener))
}

// engineersSendNothing makes this thread an engineer's: what the engineer opens reaches nobody, and what root opened goes on. The
// thread ends with its goroutine.
func engineersSendNothing(t *testing.T, l *net.TCPListener) {
	to := &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	send := func(fd int) error { return unix.Sendto(fd, []byte("x"), 0, to) }
	open := func(kind int) int {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Error(err)
		}
		return fd
	}
	roots := open(unix.SOCK_DGRAM)
	defer unix.Close(roots)
	if err := send(roots); err != nil {
		t.Errorf("root: %v", err)
	}
	become := func(call uintptr, id uintptr) {
		if _, _, e := unix.RawSyscall(call, id, id, id); e != 0 {
			t.Errorf("becoming %d: %v", id, e)
		}
	}
	// A program that is set-user-ID: the engineer's group, root's user.
	become(unix.SYS_SETRESGID, firstUID)
	raised := open(unix.SOCK_DGRAM)
	defer unix.Close(raised)
	if err := send(raised); !errors.Is(err, unix.EPERM) {
		t.Errorf("an engineer's set-user-ID program: got %v, want %v", err, unix.EPERM)
	}
	become(unix.SYS_SETRESUID, firstUID)
	own := open(unix.SOCK_DGRAM)
	defer unix.Close(own)
	if err := send(own); !errors.Is(err, unix.EPERM) {
		t.Errorf("an engineer's datagram: got %v, want %v", err, unix.EPERM)
	}
	stream := open(unix.SOCK_STREAM)
	defer unix.Close(stream)
	if err := unix.Connect(stream, to); !errors.Is(err, unix.EINPROGRESS) {
		t.Errorf("an engineer's connection: got %v, want %v and nothing more", err, unix.EINPROGRESS)
	}
	if err := l.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Error(err)
	}
	if c, err := l.Accept(); err == nil {
		t.Errorf("an engineer's connection came from %s", c.RemoteAddr())
	}
	if err := send(roots); err != nil {
		t.Errorf("a socket that root made, in an engineer's hands: %v", err)
	}
}
