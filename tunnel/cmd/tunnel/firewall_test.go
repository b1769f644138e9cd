package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"mayfly/tunnel/server"
)

// TestFirewallOutlivesInterface stops a server and looks all the while: as long as there is an interface, or forwarding, there is
// the table that says where packets may go.
func TestFirewallOutlivesInterface(t *testing.T) {
	l := newLab(t)
	l.run("srv1", "sysctl", "-qw", "net.ipv4.ip_forward=0")
	srv := l.server("srv1", "10.64.1.0/24")
	nft, err := in(l, "srv1", func() (*nftables.Conn, error) { return nftables.New(nftables.AsLasting()) })
	if err != nil {
		t.Fatal(err)
	}
	defer nft.CloseLasting()
	links, err := in(l, "srv1", func() (*netlink.Handle, error) { return netlink.NewHandle() })
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	table := func() bool {
		tables, err := nft.ListTables()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(tables, func(x *nftables.Table) bool { return x.Name == server.Table })
	}
	if !table() {
		t.Fatal("a running server has no table: the test would show nothing")
	}
	stopped := make(chan int, 1)
	go func() { stopped <- srv.stop() }()
	limit := time.Now().Add(patience)
	for table() {
		if time.Now().After(limit) {
			t.Fatal("the table is never taken away")
		}
	}
	if got := l.sysctl("srv1", "net.ipv4.ip_forward"); got != "0" {
		t.Errorf("the table is gone and ip_forward is %s", got)
	}
	_, err = links.LinkByName(server.Interface)
	if gone := (netlink.LinkNotFoundError{}); !errors.As(err, &gone) {
		t.Errorf("the table is gone and %s is there: %v", server.Interface, err)
	}
	if code := <-stopped; code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestForwardingIsPutBack ends a server where forwarding was on before, and one whose forerunner was killed.
func TestForwardingIsPutBack(t *testing.T) {
	l := newLab(t)
	l.run("srv1", "sysctl", "-qw", "net.ipv4.ip_forward=1")
	if code := l.server("srv1", "10.64.1.0/24").stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if got := l.sysctl("srv1", "net.ipv4.ip_forward"); got != "1" {
		t.Errorf("forwarding was on before, ip_forward is %s", got)
	}
	l.run("srv2", "sysctl", "-qw", "net.ipv4.ip_forward=0")
	killed := l.server("srv2", "10.64.2.0/24")
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.wait()
	if code := l.serve("srv2").stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if got := l.sysctl("srv2", "net.ipv4.ip_forward"); got != "0" {
		t.Errorf("after a kill and a restart ip_forward is %s, want 0", got)
	}
}
