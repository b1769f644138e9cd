package inventory

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"mayfly/internal/tomlfile"
)

// Bounds of a fleet.
const (
	MaxServers   = 10_000
	MaxRegions   = 1_000
	MaxRacks     = 10_000
	MaxBastions  = 64
	MaxCapacity  = 100_000_000 // Mbit/s, of one server and of a floor
	maxRoots     = 32
	maxWitnesses = 16
	minMemory    = 128     // MiB
	maxMemory    = 1 << 20 // MiB
)

var (
	label    = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	domain   = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	rootName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+$`)
	anchor   = regexp.MustCompile(`^\.[ \t][A-Za-z0-9 \t+/=.]{10,1000}$`)
	device   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)
)

// checker collects what has been seen, so that nothing is there twice.
type checker struct {
	fleet     *Fleet
	names     map[string]string     // server, bastion and service names → path
	addresses map[netip.Addr]string // → what has it
	taps      map[string]string
	macs      map[string]string
	bmcs      map[string]string
	tpms      map[string]string
	known     map[string]bool // mirrors
}

// Check refuses a fleet that Parse would refuse. Its errors name places by their path: "server[2].capacity: …".
func Check(f Fleet) error {
	c := &checker{
		fleet:     &f,
		names:     map[string]string{NameController: theController, NameCheckin: "check-in"},
		known:     map[string]bool{},
		addresses: map[netip.Addr]string{}, taps: map[string]string{}, macs: map[string]string{}, bmcs: map[string]string{}, tpms: map[string]string{},
	}
	for _, step := range []func() error{c.top, c.network, c.dns, c.bastions, c.places, c.servers, c.tunnels, c.published, c.updates} {
		if err := step(); err != nil {
			return err
		}
	}
	return CheckFloors(f)
}

func (c *checker) top() error {
	f := c.fleet
	if !label.MatchString(f.Name) {
		return tomlfile.At("name", "for example name = \"lab\"", "fleet name %q is not a lower-case DNS label", f.Name)
	}
	if len(f.Domain) > 190 || !domain.MatchString(f.Domain) {
		return tomlfile.At("domain", "for example domain = \"lab.internal\"", "domain %q is not a lower-case DNS name", f.Domain)
	}
	for _, n := range []struct {
		path      string
		have, max int
	}{{"server", len(f.Servers), MaxServers}, {"region", len(f.Regions), MaxRegions}, {"rack", len(f.Racks), MaxRacks}, {"bastion", len(f.AllBastions()), MaxBastions}, {"dns.root", len(f.DNS.Roots), maxRoots}, {"dns.trust_anchors", len(f.DNS.TrustAnchors), maxRoots}} {
		if n.have > n.max {
			return tomlfile.At(n.path, "split the fleet", "%d of %s: at most %d", n.have, n.path, n.max)
		}
	}
	if err := c.mirrors(); err != nil {
		return err
	}
	return c.witnesses()
}

// witnesses asks for addresses: a server resolves no names. What a witness says is signed, so TLS would add nothing.
func (c *checker) witnesses() error {
	if len(c.fleet.Witnesses) > maxWitnesses {
		return tomlfile.At("witnesses", "a trust policy has no more", "%d witnesses: at most %d", len(c.fleet.Witnesses), maxWitnesses)
	}
	for i, w := range c.fleet.Witnesses {
		at, scheme := strings.CutPrefix(w, "http://")
		if ap, err := netip.ParseAddrPort(at); !scheme || err != nil || ap.String() != at || ap.Port() == 0 || ap.Addr().Zone() != "" {
			return tomlfile.At(fmt.Sprintf("witnesses[%d]", i), "for example witnesses = [\"http://192.0.2.1:9000\"]", "witness %q is not http://ADDRESS:PORT", w)
		}
		if slices.Contains(c.fleet.Witnesses[:i], w) {
			return tomlfile.At(fmt.Sprintf("witnesses[%d]", i), "each witness once", "witness %q is listed twice", w)
		}
	}
	return nil
}

func (c *checker) network() error {
	f := c.fleet
	if f.BastionsOnly() && len(f.Network.Management) == 0 && f.Network.Gateway == (netip.Addr{}) && reflect.ValueOf(f.Controller).IsZero() {
		return nil // nothing is rebuilt, and nobody's traffic carried
	}
	if len(f.Network.Management) == 0 {
		return tomlfile.At("network.management", "list the networks of controller and bastions: nothing inside a tunnel may reach them", "network.management is empty")
	}
	for i, p := range f.Network.Management {
		if err := network(fmt.Sprintf("network.management[%d]", i), p); err != nil {
			return err
		}
	}
	if err := address("network.gateway", f.Network.Gateway); err != nil {
		return err
	}
	if err := address("controller.address", f.Controller.Address); err != nil {
		return err
	}
	if !within(f.Network.Management, f.Controller.Address) {
		return tomlfile.At("controller.address", "add its network to network.management", "controller address %s is in no management network, so users could reach it", f.Controller.Address)
	}
	c.addresses[f.Controller.Address] = theController
	c.addresses[f.Network.Gateway] = theGateway // which may be the controller
	ports := map[uint16]string{}
	for _, p := range []struct {
		name string
		port uint16
	}{{"boot_port", f.Controller.BootPort}, {"join_port", f.Controller.JoinPort}, {"checkin_port", f.Controller.CheckinPort}} {
		path := "controller." + p.name
		if p.port == 0 {
			return tomlfile.At(path, "give each of the controller's three services a port", "%s is missing", p.name)
		}
		if other, ok := ports[p.port]; ok {
			return tomlfile.At(path, "give each of the controller's three services its own port", "%s and %s are both %d", other, p.name, p.port)
		}
		ports[p.port] = p.name
	}
	if other, ok := ports[f.Controller.PagePort]; ok {
		return tomlfile.At("controller.page_port", "give the status page its own port", "%s and page_port are both %d", other, f.Controller.PagePort)
	}
	if f.Controller.PagePort != 0 && f.Controller.PagePort == f.Controller.UpdatesPort {
		return tomlfile.At("controller.page_port", "give the status page its own port", "updates_port and page_port are both %d", f.Controller.PagePort)
	}
	return nil
}

func (c *checker) dns() error {
	d := c.fleet.DNS
	for i, r := range d.Roots {
		path := fmt.Sprintf("dns.root[%d]", i)
		if len(r.Name) > 253 || !rootName.MatchString(r.Name) {
			return tomlfile.At(path+".name", "for example name = \"a.root.lab.\"", "root server name %q is not a lower-case DNS name that ends in a dot", r.Name)
		}
		if err := address(path+".address", r.Address); err != nil {
			return err
		}
	}
	for i, a := range d.TrustAnchors {
		if !anchor.MatchString(a) {
			return tomlfile.At(fmt.Sprintf("dns.trust_anchors[%d]", i), "for example \". IN DS 20326 8 2 E06D44B8…\"", "trust anchor %q is no DS or DNSKEY record of the root", a)
		}
	}
	if len(d.Roots) > 0 && len(d.TrustAnchors) == 0 && !c.fleet.Test {
		return tomlfile.At("dns", "set dns.trust_anchors to the DS record of that root", "a root of one's own without trust anchors would not be validated; only a fleet with test = true may do so")
	}
	if len(d.Roots) == 0 && len(d.TrustAnchors) > 0 {
		return tomlfile.At("dns.trust_anchors", "list the root's servers as [[dns.root]], or leave both out for the public root", "trust anchors without a root of one's own")
	}
	return nil
}

func (c *checker) bastions() error {
	for i, b := range c.fleet.Bastions {
		path := fmt.Sprintf("bastion[%d]", i)
		if err := c.name(path, b.Name); err != nil {
			return err
		}
		if err := address(path+".address", b.Address); err != nil {
			return err
		}
		if b.Port == 0 {
			return tomlfile.At(path+".port", "for example port = 22", "bastion %q has no port", b.Name)
		}
		// A bastion may share its address with another one, on another port.
		c.addresses[b.Address] = "bastion " + b.Name
	}
	return nil
}

func (c *checker) places() error {
	regions := map[string]bool{}
	for i, r := range c.fleet.Regions {
		path := fmt.Sprintf("region[%d].name", i)
		if !label.MatchString(r.Name) {
			return tomlfile.At(path, "for example name = \"se\"", "region name %q is not a lower-case DNS label", r.Name)
		}
		if regions[r.Name] {
			return tomlfile.At(path, "each region once", "region %q is there twice", r.Name)
		}
		regions[r.Name] = true
		if r.Floor.Mbps < 0 || r.Floor.Percent < 0 || r.Floor.Percent > 100 {
			return tomlfile.At(fmt.Sprintf("region[%d].floor", i), "floor = 1000 (Mbit/s) or floor = \"50%\"", "floor of region %q is out of range", r.Name)
		}
	}
	racks := map[string]bool{}
	for i, r := range c.fleet.Racks {
		path := fmt.Sprintf("rack[%d]", i)
		if !label.MatchString(r.Name) {
			return tomlfile.At(path+".name", "for example name = \"se-a\"", "rack name %q is not a lower-case DNS label", r.Name)
		}
		if racks[r.Name] {
			return tomlfile.At(path+".name", "each rack once", "rack %q is there twice", r.Name)
		}
		racks[r.Name] = true
		if !regions[r.Region] {
			return tomlfile.At(path+".region", "add a [[region]] of that name, or correct it", "rack %q is in region %q, which does not exist", r.Name, r.Region)
		}
	}
	return nil
}

func (c *checker) servers() error {
	racks := map[string]bool{}
	for _, r := range c.fleet.Racks {
		racks[r.Name] = true
	}
	for i, s := range c.fleet.Servers {
		path := fmt.Sprintf("server[%d]", i)
		if err := c.name(path, s.Name); err != nil {
			return err
		}
		if s.Role == RoleHost {
			if err := c.host(path, s); err != nil {
				return err
			}
			continue
		}
		if s.Updates != "" || s.UpdateID != "" {
			return tomlfile.At(path+".updates", "leave updates and update_id out: mayfly decides by itself when to rebuild it", "server %q is no host, and has updates", s.Name)
		}
		if !racks[s.Rack] {
			return tomlfile.At(path+".rack", "add a [[rack]] of that name, or correct it", "server %q is in rack %q, which does not exist", s.Name, s.Rack)
		}
		if len(s.HostKeys) > 0 {
			return tomlfile.At(path+".host_keys", "leave it out: a server that is rebuilt has a certificate for each life", "server %q is rebuilt, and has no host_keys", s.Name)
		}
		if s.Role != RoleVPN && s.Role != RoleBastion && s.Role != RoleController {
			return tomlfile.At(path+".role", "role = \"vpn\", \"bastion\" or \"controller\", or role = \"host\" for one that mayfly does not rebuild", "server %q has unknown role %q", s.Name, s.Role)
		}
		if err := c.domains(path, s); err != nil {
			return err
		}
		if s.Role != RoleVPN {
			if err := c.withoutUsers(path, s); err != nil {
				return err
			}
		} else if s.Capacity < 1 || s.Capacity > MaxCapacity {
			return tomlfile.At(path+".capacity", "capacity is what the server can carry, in Mbit/s", "server %q has capacity %d: it must be 1 to %d", s.Name, s.Capacity, MaxCapacity)
		}
		if err := c.serverAddress(path+".address", s); err != nil {
			return err
		}
		if err := c.link(path, s); err != nil {
			return err
		}
		if err := c.power(path+".power", s); err != nil {
			return err
		}
	}
	return nil
}

// withoutUsers checks what only a server that is a bastion or a controller's has to be: no users, and within reach of every server.
func (c *checker) withoutUsers(path string, s Server) error {
	for _, x := range []struct {
		key string
		has bool
	}{{"capacity", s.Capacity != 0}, {"tunnel", s.Tunnel != netip.Prefix{}}} {
		if x.has {
			return tomlfile.At(path+"."+x.key, "leave it out, or say role = \"vpn\"", "server %q is a %s, which has no %s", s.Name, s.Role, x.key)
		}
	}
	if !within(c.fleet.Network.Management, s.Address.Addr()) {
		return tomlfile.At(path+".address", "add its network to network.management", "%s %q has address %s, which is in no management network, so users could reach it", s.Role, s.Name, s.Address.Addr())
	}
	return nil
}

// host checks a server that mayfly does not rebuild.
func (c *checker) host(path string, s Server) error {
	place := s.Updates == "" // one that asks is somewhere, and can carry something
	for _, x := range []struct {
		key string
		has bool
	}{{"rack", place && s.Rack != ""}, {"capacity", place && s.Capacity != 0}, {"tunnel", s.Tunnel != netip.Prefix{}}, {"power", s.Power != Power{}},
		{"switch", s.Switch != ""}, {"bmc_network", s.BMCNetwork != ""}, {"mirror", s.Mirror != ""}, {"ring", s.Ring != ""}, {"spare", s.Spare}} {
		if x.has {
			return tomlfile.At(path+"."+x.key, "leave it out, or say role = \"vpn\"", "server %q is a host, which has no %s", s.Name, x.key)
		}
	}
	if err := hostKeys(path+".host_keys", s); err != nil {
		return err
	}
	path += ".address"
	if !s.Address.IsValid() {
		return tomlfile.At(path, "for example address = \"192.0.2.11/24\"", "server %q has no address", s.Name)
	}
	a := s.Address.Addr()
	if err := ordinary(path, s.Name, a); err != nil {
		return err
	}
	if !s.Address.IsSingleIP() && (a == s.Address.Masked().Addr() || a.Is4() && a == last(s.Address)) {
		return tomlfile.At(path, "give the host's own address", "server %q has address %s, which is no host in a network", s.Name, s.Address)
	}
	return c.take(path, s)
}

// Who has an address that is no server's. A server whose role is controller may be where the controller is.
const (
	theController = "the controller"
	theGateway    = "the gateway"
)

// take gives an address to a server, if it is nobody else's.
func (c *checker) take(path string, s Server) error {
	a := s.Address.Addr()
	if other, ok := c.addresses[a]; ok && (s.Role != RoleController || a != c.fleet.Controller.Address || other != theController && other != theGateway) {
		return tomlfile.At(path, "each address once", "server %q has address %s, which %s has too", s.Name, a, other)
	}
	c.addresses[a] = "server " + s.Name
	return nil
}

func (c *checker) serverAddress(path string, s Server) error {
	if !s.Address.IsValid() {
		return tomlfile.At(path, "for example address = \"192.0.2.11/24\"", "server %q has no address", s.Name)
	}
	a := s.Address.Addr()
	if err := ordinary(path, s.Name, a); err != nil {
		return err
	}
	if s.Address.IsSingleIP() || a == s.Address.Masked().Addr() || a.Is4() && a == last(s.Address) {
		return tomlfile.At(path, "give the host's address with the prefix length of its network, for example \"192.0.2.11/24\"", "server %q has address %s, which is no host in a network", s.Name, s.Address)
	}
	if !s.Address.Contains(c.fleet.Network.Gateway) {
		return tomlfile.At(path, "check the prefix length, and network.gateway", "server %q has address %s, from which the gateway %s cannot be reached", s.Name, s.Address, c.fleet.Network.Gateway)
	}
	return c.take(path, s)
}

// name checks the name of a server or bastion, which share one name space: certificates.
func (c *checker) name(path, name string) error {
	kind := path[:strings.IndexByte(path, '[')]
	if !label.MatchString(name) {
		return tomlfile.At(path+".name", "for example name = \"se-1\"", "%s name %q is not a lower-case DNS label", kind, name)
	}
	if other, ok := c.names[name]; ok {
		return tomlfile.At(path+".name", "names of servers and bastions are unique in the fleet", "%s name %q is taken by %s", kind, name, other)
	}
	c.names[name] = "another " + kind
	return nil
}
