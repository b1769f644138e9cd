package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Which devices a ticket's hardware addresses choose, in their order.
func TestChoose(t *testing.T) {
	device := func(name, mac string, flags net.Flags, raw uint32) netlink.Link {
		hardware, err := net.ParseMAC(mac)
		if err != nil {
			t.Fatal(err)
		}
		return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: hardware, EncapType: "ether", Flags: flags, RawFlags: raw}}
	}
	a, b, c := "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
	links := []netlink.Link{
		device("lo", "00:00:00:00:00:00", net.FlagLoopback, 0), device("dummy0", c, 0, unix.IFF_NOARP), device("eth0", a, 0, 0), device("eth1", b, 0, 0),
		&netlink.Bridge{LinkAttrs: device("br0", c, 0, 0).(*netlink.Device).LinkAttrs},
	}
	for _, tt := range []struct {
		name    string
		links   []netlink.Link
		macs    []string
		want    []string
		missing []string
	}{
		{"the first", links, nil, []string{"eth0"}, nil},
		{"one by its address", links, []string{b}, []string{"eth1"}, nil},
		{"several, in the ticket's order", links, []string{b, a}, []string{"eth1", "eth0"}, nil},
		{"one is missing", links, []string{a, c}, []string{"eth0"}, []string{c}},
		{"none at all", links[:2], nil, nil, []string{"of Ethernet"}},
	} {
		found, missing := choose(tt.links, tt.macs)
		var names []string
		for _, l := range found {
			names = append(names, l.Attrs().Name)
		}
		if !slices.Equal(names, tt.want) || !slices.Equal(missing, tt.missing) {
			t.Errorf("%s: found %q, missing %q", tt.name, names, missing)
		}
	}
}

// Which addresses of a lease a machine takes.
func TestUsable(t *testing.T) {
	for text, want := range map[string]bool{
		"10.77.0.11": true, "203.0.113.9": true, "fd77::11": true, "2001:db8::1": true,
		"0.0.0.0": false, "255.255.255.255": false, "127.0.0.1": false, "169.254.1.1": false, "224.0.0.1": false, "::": false, "::1": false, "fe80::1": false, "ff02::1": false,
	} {
		if got := usable(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if usable(addressOf(nil)) || usable(addressOf(net.IP{1, 2, 3})) {
		t.Error("no address is usable")
	}
}

// Both halves of a ticket come from the same place, the initramfs first.
func TestReadTicket(t *testing.T) {
	const own, cred = "/ticket.json", "/.extra/credentials/ticket.json.cred"
	const ownSig, credSig = "/ticket.json.sig", "/.extra/credentials/ticket.json.sig.cred"
	for _, tt := range []struct {
		name  string
		files []string
		want  string // the file that the ticket came from
	}{
		{"in the initramfs", []string{own, ownSig}, own},
		{"beside a unified kernel image", []string{cred, credSig}, cred},
		{"both", []string{own, ownSig, cred, credSig}, own},
		{"the signature from elsewhere", []string{own, credSig}, ""},
		{"no signature", []string{cred}, ""},
		{"none", nil, ""},
	} {
		root := t.TempDir()
		for _, file := range tt.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, file), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		data, sig, err := readTicket(root + "/")
		if (err == nil) != (tt.want != "") || string(data) != tt.want || err == nil && (len(sig) == 0 || filepath.Dir(string(sig)) != filepath.Dir(tt.want)) || err != nil && reasonOf(err) != ticketMissing {
			t.Errorf("%s: ticket %q, signature %q, %v", tt.name, data, sig, err)
		}
	}
}
