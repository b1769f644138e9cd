package netlab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nameDir is where named namespaces are bound; `ip netns` uses the same directory.
const nameDir = "/run/netns"

// Namespace is a named network namespace.
type Namespace struct{ Name string }

// Path is the file that holds the namespace.
func (n Namespace) Path() string { return filepath.Join(nameDir, n.Name) }

// create makes the namespace and binds it to its name, with loopback up.
func (n Namespace) create() error {
	if err := os.MkdirAll(nameDir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", nameDir, err)
	}
	return onThread(func() error {
		handle, err := netns.NewNamed(n.Name)
		if err != nil {
			return fmt.Errorf("making network namespace %q: %w", n.Name, err)
		}
		return handle.Close()
	})
}

// remove unbinds the namespace. It goes away when its last process has ended.
func (n Namespace) remove() error {
	err := netns.DeleteNamed(n.Name)
	if errors.Is(err, unix.EINVAL) { // the file is there, nothing is mounted on it: a run killed between the two
		err = os.Remove(n.Path())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing network namespace %q: %w", n.Name, err)
	}
	return nil
}

// Exists reports whether the name is bound.
func (n Namespace) Exists() bool {
	_, err := os.Stat(n.Path())
	return err == nil
}

// Do runs f on an operating system thread inside the namespace. Goroutines that f starts are outside of it.
func (n Namespace) Do(f func() error) error {
	handle, err := netns.GetFromPath(n.Path())
	if err != nil {
		return fmt.Errorf("opening network namespace %q: %w", n.Name, err)
	}
	defer handle.Close()
	return inside(handle, n.Name, f)
}

func inside(handle netns.NsHandle, name string, f func() error) error {
	return onThread(func() error {
		if err := netns.Set(handle); err != nil {
			return fmt.Errorf("entering network namespace %q: %w", name, err)
		}
		return f()
	})
}

// onThread runs f on a locked thread that returns to the namespace it came from, or is given up when it cannot.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("reading the thread's network namespace: %w", err)
			return // the locked thread ends with its goroutine
		}
		defer home.Close()
		err = f()
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Start starts a command inside the namespace.
func (n Namespace) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start) // the child is forked from the calling thread and inherits its namespace
}

// Run starts a command inside the namespace and waits for it.
func (n Namespace) Run(cmd *exec.Cmd) error {
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// DialContext dials from inside the namespace, from the given address if it is valid.
func (n Namespace) DialContext(ctx context.Context, network, address string, from netip.Addr) (net.Conn, error) {
	dialer := net.Dialer{FallbackDelay: -1} // one socket, made on this thread
	if from.IsValid() {
		if strings.HasPrefix(network, "udp") {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		} else {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
	}
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialling %q in %q: need IP:PORT, a name would be resolved outside: %w", address, n.Name, err)
	}
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens inside the namespace.
func (n Namespace) Listen(network, address string) (net.Listener, error) {
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// sysctl writes a network setting of the namespace that the calling thread is in.
func sysctl(key, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	err := os.WriteFile(path, []byte(value), 0o644)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(key, "net.ipv6.") {
		return nil // a kernel without IPv6
	}
	if err != nil {
		return fmt.Errorf("setting %s to %s: %w", key, value, err)
	}
	return nil
}
