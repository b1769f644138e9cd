package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mayfly/rebuild/ticket"
	"mayfly/testenv/netlab"
)

// Hardware addresses of a machine's two network devices.
const (
	firstMAC  = "52:54:00:00:00:01" // which the driver gives
	secondMAC = "52:54:00:00:00:02"
)

const tapOptions = ",script=no,downscript=no"

// network is a machine's network, in a namespace of its own: a bridge with two taps, and on it, or on a VLAN of it, a controller and a
// server of DHCP.
type network struct {
	address netip.Prefix // of the controller
	own     netip.Prefix // of the machine
	vlan    int
	dnsmasq []string // nil: no DHCP
	attempt attempt

	tagger *tagger // with a VLAN
}

func networks() map[string]network {
	v4, own4 := netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("10.77.0.11/24")
	v6, own6 := netip.MustParsePrefix("fd77::1/64"), netip.MustParsePrefix("fd77::11/64")
	through := func(n ticket.Network) func(*ticket.Ticket) {
		return func(k *ticket.Ticket) { k.Network, k.Gateway = n, netip.Addr{} }
	}
	range4, range6 := "--dhcp-range=10.77.0.0,static", "--dhcp-range=fd77::,static,64"
	second := []string{"-netdev", "tap,id=net1,ifname=tap1" + tapOptions, "-device", "virtio-net-pci,netdev=net1,romfile=,mac=" + secondMAC}
	const route4, route6 = "/proc/net/route: eth0\t00000000\t01004D0A", "/proc/net/ipv6_route: 00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe80"
	return map[string]network{
		"good, DHCPv4": {address: v4, own: own4, dnsmasq: []string{range4, "--dhcp-host=" + firstMAC + ",10.77.0.11"}, attempt: attempt{
			ticket: through(ticket.Network{Mode: ticket.DHCP4}),
			says:   []string{"mayfly-stub: lease: 10.77.0.11 through 10.77.0.1, from 10.77.0.1\n", "device " + firstMAC + " [10.77.0.11/24 ", route4},
		}},
		"good, DHCPv6": {address: v6, own: own6, dnsmasq: []string{range6, "--enable-ra", "--dhcp-host=" + firstMAC + ",[fd77::11]"}, attempt: attempt{
			ticket: through(ticket.Network{Mode: ticket.DHCP6}), https: true, mirrors: []behaviour{honest},
			says: []string{"mayfly-stub: lease: fd77::11, from ", "device " + firstMAC + " [fd77::11/64 fe80::", route6},
		}},
		"good, DHCPv4 over a VLAN of a bond": {address: v4, own: own4, vlan: 7, dnsmasq: []string{range4, "--dhcp-host=" + secondMAC + ",10.77.0.11"}, attempt: attempt{
			ticket: through(ticket.Network{Mode: ticket.DHCP4, MACs: []string{secondMAC, firstMAC}, Bond: ticket.ActiveBackup, VLAN: 7}),
			says:   []string{"device " + secondMAC + " [10.77.0.11/24 ", "/proc/net/bonding/trunk0: Bonding Mode: fault-tolerance (active-backup)", "/proc/net/bonding/trunk0: Slave Interface: port0", "/proc/net/bonding/trunk0: Slave Interface: port1", "/proc/net/vlan/eth0: eth0  VID: 7"},
		}},
		"good, a static IPv6 address on the second device": {address: v6, own: own6, attempt: attempt{
			ticket: through(ticket.Network{Mode: ticket.Static, MACs: []string{secondMAC}}), extra: second,
			says: []string{"device " + secondMAC + " [fd77::11/64 fe80::"},
		}},
		"another address by DHCPv4": {address: v4, own: own4, dnsmasq: []string{range4, "--dhcp-host=" + firstMAC + ",10.77.0.99"}, attempt: attempt{
			ticket: through(ticket.Network{Mode: ticket.DHCP4}), want: leaseDiffers, says: []string{"the lease is for 10.77.0.99, the ticket for 10.77.0.11"},
		}},
		"another address by DHCPv6": {address: v6, own: own6, dnsmasq: []string{range6, "--dhcp-host=" + firstMAC + ",[fd77::99]"}, attempt: attempt{
			ticket: through(ticket.Network{Mode: ticket.DHCP6}), want: leaseDiffers, says: []string{"the lease is for fd77::99, the ticket for fd77::11"},
		}},
		"no such network device": {address: v4, own: own4, attempt: attempt{
			ticket: through(ticket.Network{Mode: ticket.Static, MACs: []string{secondMAC}}), want: networkFailed, unreported: true, says: []string{secondMAC},
		}},
	}
}

// run makes the network and boots on it.
func (n *network) run(t *testing.T, b *bench) {
	ns, err := netlab.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := ns.Do(n.make); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, n.own, n.address.Addr(), func() (l net.Listener, err error) {
		err = ns.Do(func() error {
			l, err = net.Listen("tcp", netip.AddrPortFrom(n.address.Addr(), 0).String())
			return err
		})
		return l, err
	})
	if n.dnsmasq != nil {
		n.serveDHCP(t, ns)
	}
	a := &n.attempt
	a.prepare(t, b, s, "n")
	a.start = ns.Do
	netdev := "tap,ifname=tap0" + tapOptions
	if n.vlan != 0 {
		n.tagger.serve(t)
		netdev = n.tagger.netdev(0)
		a.extra = append(a.extra, "-netdev", n.tagger.netdev(1)+",id=net1", "-device", "virtio-net-pci,netdev=net1,romfile=,mac="+secondMAC)
	}
	a.run(t, a.on(t, netdev))
}

// make makes the bridge and its taps in the namespace that the thread is in.
func (n *network) make() (err error) {
	named := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	bridge := &netlink.Bridge{LinkAttrs: named("bridge0")}
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	for _, name := range []string{"tap0", "tap1"} {
		tap := &netlink.Tuntap{LinkAttrs: named(name), Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_DEFAULTS | netlink.TUNTAP_VNET_HDR}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("tap: %w", err)
		}
		for _, fd := range tap.Fds {
			if err := fd.Close(); err != nil {
				return err
			}
		}
		if err := errors.Join(netlink.LinkSetMaster(tap, bridge), netlink.LinkSetUp(tap)); err != nil {
			return fmt.Errorf("tap: %w", err)
		}
	}
	var link netlink.Link = bridge
	if n.vlan != 0 {
		if link, err = n.makeTagger(); err != nil {
			return fmt.Errorf("vlan: %w", err)
		}
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(n.address), Flags: unix.IFA_F_NODAD}); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	return nil
}

// serveDHCP runs Debian's dnsmasq until the test ends.
func (n *network) serveDHCP(t *testing.T, ns *netlab.Private) {
	t.Helper()
	device := "bridge0"
	if n.vlan != 0 {
		device = "vlan0"
	}
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dnsmasq", append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=" + device, "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
		"--log-facility=-", "--log-dhcp", "--user=root", "--pid-file=", "--dhcp-leasefile=" + filepath.Join(dir, "leases")}, n.dnsmasq...)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := cmd.Process.Kill()
		cmd.Wait() // says that it was killed
		text, readErr := os.ReadFile(out.Name())
		if err := errors.Join(err, readErr, out.Close()); err != nil {
			t.Errorf("dnsmasq: %v\n%s", err, text)
		}
		if t.Failed() {
			t.Logf("dnsmasq:\n%s", text)
		}
	})
}

// withTPM gives an attempt's machine a TPM of swtpm's.
func withTPM(t *testing.T, a attempt) attempt {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm") // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket, "--terminate")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() // it may have ended with its machine
		cmd.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	a.extra = append(a.extra, "-chardev", "socket,id=tpm,path="+socket, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0")
	return a
}

// losesNetwork is an attempt whose machine loses its network in the middle of the root, and has it again once it has noticed.
func losesNetwork(t *testing.T) attempt {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(dir, "s")
	half, lost := make(chan struct{}), make(chan struct{})
	return attempt{
		extra:   []string{"-qmp", "unix:" + socket + ",server=on,wait=off"},
		mirrors: []behaviour{breaksInTheMiddle(half, lost)},
		says:    []string{"mirror 1: root.erofs: ", "retry 1: root.erofs: "},
		during: func(t *testing.T, ctx context.Context, m *machine) {
			select {
			case <-half:
			case <-ctx.Done():
				t.Fatal("nobody asked for the root")
			}
			setLink(t, socket, false)
			close(lost)
			waitConsole(t, ctx, m, func(text string) bool { return strings.Contains(text, "retry 1: root.erofs: ") })
			setLink(t, socket, true)
		},
	}
}

// setLink pulls the machine's network cable, or puts it back.
func setLink(t *testing.T, socket string, up bool) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := json.NewDecoder(conn)
	var greeting struct{ QMP any }
	if err := in.Decode(&greeting); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{`{"execute": "qmp_capabilities"}`, fmt.Sprintf(`{"execute": "set_link", "arguments": {"name": "net0", "up": %v}}`, up)} {
		if _, err := conn.Write([]byte(command)); err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Return any             `json:"return"`
			Error  json.RawMessage `json:"error"`
		}
		for answer.Return == nil { // events come between
			if err := in.Decode(&answer); err != nil || answer.Error != nil {
				t.Fatalf("%s: %v %s", command, err, answer.Error)
			}
		}
	}
}
