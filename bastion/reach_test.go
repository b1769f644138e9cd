package bastion

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"mayfly/inventory"
	"mayfly/policies/bundle"
	"mayfly/testenv/softkey"
)

// TestReachable asks about each kind of address by itself: no two checks stand in for one another.
func TestReachable(t *testing.T) {
	r := &ruling{bundle: &bundle.Bundle{Inventory: inventory.Fleet{Controller: inventory.Controller{Address: netip.MustParseAddr("10.77.0.1")},
		Bastions: []inventory.Bastion{{Name: "b1", Address: netip.MustParseAddr("10.77.0.2")}}}}}
	s := &Server{config: Config{Listen: netip.MustParseAddrPort("10.77.0.3:22")}, ownAddresses: func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.77.0.4")}, nil
	}}
	for address, want := range map[string]string{
		"10.77.0.11": "", "2001:db8::1": "", "192.0.2.1": "",
		"10.77.0.1": "the controller", "10.77.0.2": "bastion b1", "10.77.0.3": "this bastion", "10.77.0.4": "this machine",
		"127.0.0.1": "loopback", "127.9.9.9": "loopback", "::1": "loopback", "0.0.0.0": "no server's", "::": "no server's", "0.0.0.1": "no server's", "::127.0.0.1": "loopback",
		"169.254.169.254": "link-local", "fe80::1": "link-local", "fd00:ec2::254": "metadata", "100.100.100.200": "metadata", "168.63.129.16": "metadata",
		"192.0.0.192": "no server's", "64:ff9b::a9fe:a9fe": "translated", "64:ff9b::7f00:1": "translated", "2002:7f00:1::1": "tunnelled", "240.0.0.1": "reserved",
		"255.255.255.255": "reserved", "224.0.0.1": "multicast", "ff02::1": "multicast",
	} {
		err := s.reachable(r, netip.MustParseAddr(address))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", address, err, want)
		}
	}
	if err := s.reachable(r, netip.Addr{}); err == nil {
		t.Error("the zero address is reachable")
	}
	s.ownAddresses = func() ([]netip.Addr, error) { return nil, errors.New("no netlink") }
	if err := s.reachable(r, netip.MustParseAddr("10.77.0.11")); err == nil {
		t.Error("a server is reachable though this machine's addresses are not known")
	}
}

// TestNameMeansAnotherMachine: a jump ends when its server gets another address, and one to a server that keeps its own goes on.
func TestNameMeansAnotherMachine(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	f.target("10.77.0.12:22", echo)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	moves, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	stays, err := anna.Dial("tcp", "se-2:22")
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Version++
	f.fleet.Servers[0].Address = netip.MustParsePrefix("10.77.0.21/24")
	f.writeBundle(2)
	cutWithin(t, moves, patience)
	if _, err := stays.Write([]byte("x")); err != nil {
		t.Errorf("the other target: %v", err)
	}
	if n, err := stays.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the other target: %v", err)
	}
	anna.Close()
	for _, target := range f.closing().Targets {
		if target.Server == "se-1" && (target.Ended != endPolicy || target.Reason != "target_unknown") {
			t.Errorf("got %+v", target)
		}
	}
}
