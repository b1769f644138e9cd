// Package inventory says what exists: regions, racks, servers and their capacity, read from fleet.toml, and the
// lifecycle of a server as one table of legal transitions. It does no I/O beyond reading the bytes it is given.
package inventory

import (
	"net/netip"
	"slices"
)

// Fleet is a parsed and checked fleet.toml. It is also part of the signed policy bundle, as JSON.
type Fleet struct {
	Name       string     `toml:"name" json:"name"`                     // lower-case DNS label
	Domain     string     `toml:"domain" json:"domain"`                 // certificates name SERVER.DOMAIN
	Test       bool       `toml:"test" json:"test"`                     // software keys and virtual hardware may be accepted
	Witnesses  []string   `toml:"witnesses" json:"witnesses,omitempty"` // "http://ADDRESS:PORT" of who confirms policies, for servers that are bastions
	Mirrors    []string   `toml:"mirrors" json:"mirrors,omitempty"`     // "http[s]://ADDRESS:PORT/PATH/" with what the controller's boot port has, asked first
	Network    Network    `toml:"network" json:"network"`
	Controller Controller `toml:"controller" json:"controller"`
	DNS        DNS        `toml:"dns" json:"dns"`
	Bastions   []Bastion  `toml:"bastion" json:"bastions"`
	Regions    []Region   `toml:"region" json:"regions"`
	Racks      []Rack     `toml:"rack" json:"racks"`
	Servers    []Server   `toml:"server" json:"servers"`
	Updates    []Update   `toml:"update" json:"updates,omitempty"` // what hosts that ask by Omaha are given
}

// Network is what the servers' own interfaces need.
type Network struct {
	Management []netip.Prefix `toml:"management" json:"management"` // never reachable from inside a tunnel
	Gateway    netip.Addr     `toml:"gateway" json:"gateway"`
}

// Controller is where servers find their controller.
type Controller struct {
	Address     netip.Addr `toml:"address" json:"address"`
	BootPort    uint16     `toml:"boot_port" json:"boot_port"`       // HTTP: releases and images, checked by hash and signature
	JoinPort    uint16     `toml:"join_port" json:"join_port"`       // TLS: join, renewal, stream
	CheckinPort uint16     `toml:"checkin_port" json:"checkin_port"` // TLS: the API that apps ask
	Store       string     `toml:"store" json:"store,omitempty"`     // "etcd://HOST:PORT[,HOST:PORT...]/PREFIX", shared by several controllers; "": SQLite in the state directory

	PagePort     uint16         `toml:"page_port" json:"page_port,omitempty"`         // TLS: the status page, for engineers with a certificate of the operators' CA; 0: none is shown
	UpdatesPort  uint16         `toml:"updates_port" json:"updates_port,omitempty"`   // TLS: hosts ask whether they may restart (FleetLock, Omaha); 0: nobody may
	Metrics      string         `toml:"metrics" json:"metrics,omitempty"`             // where numbers are published: "127.0.0.1:9123", or a socket's absolute path
	MetricsAllow []netip.Prefix `toml:"metrics_allow" json:"metrics_allow,omitempty"` // who reads them from elsewhere
}

// DNS replaces the public root, for a fleet with a root of its own. Empty: the public root and its key.
type DNS struct {
	Roots        []RootServer `toml:"root" json:"roots"`
	TrustAnchors []string     `toml:"trust_anchors" json:"trust_anchors"` // DS or DNSKEY records in presentation form
}

// RootServer is one name server of the root zone.
type RootServer struct {
	Name    string     `toml:"name" json:"name"`
	Address netip.Addr `toml:"address" json:"address"`
}

// Bastion is a host that engineers jump through; servers accept SSH from these addresses only.
type Bastion struct {
	Name    string     `toml:"name" json:"name"`
	Address netip.Addr `toml:"address" json:"address"`
	Port    uint16     `toml:"port" json:"port"`
}

// Region is a place whose capacity is kept.
type Region struct {
	Name  string `toml:"name" json:"name"`
	Floor Floor  `toml:"floor" json:"floor"`
}

// Rack is a failure domain inside a region.
type Rack struct {
	Name   string `toml:"name" json:"name"`
	Region string `toml:"region" json:"region"`
}

// Server is one machine. A host has a name, a role, an address and host keys, and nothing else.
type Server struct {
	Name           string       `toml:"name" json:"name"` // lower-case DNS label, unique in the fleet
	Rack           string       `toml:"rack" json:"rack"`
	Role           string       `toml:"role" json:"role"`                         // "vpn", "bastion", "controller" or "host"
	Switch         string       `toml:"switch" json:"switch,omitempty"`           // failure domains beside its rack: what it is cabled to,
	BMCNetwork     string       `toml:"bmc_network" json:"bmc_network,omitempty"` // where its BMC is,
	Mirror         string       `toml:"mirror" json:"mirror,omitempty"`           // and which of the fleet's image mirrors it asks first
	Ring           string       `toml:"ring" json:"ring,omitempty"`               // "internal": no users; new releases come here first
	Spare          bool         `toml:"spare" json:"spare,omitempty"`             // serves only while others of its region are out
	Address        netip.Prefix `toml:"address" json:"address"`                   // with the prefix length of its network
	Capacity       int          `toml:"capacity" json:"capacity"`                 // Mbit/s, positive; a bastion has none
	Tunnel         netip.Prefix `toml:"tunnel" json:"tunnel"`                     // addresses of its VPN clients; the first host address is its own
	Power          Power        `toml:"power" json:"power"`
	Network        Link         `toml:"network" json:"network,omitzero"`
	EndorsementKey string       `toml:"endorsement_key" json:"endorsement_key,omitempty"` // SHA-256 (hex) of its TPM's endorsement key, as TPMT_PUBLIC
	Drivers        []string     `toml:"drivers" json:"drivers,omitempty"`                 // SHA-256 (Authenticode, hex) of the EFI drivers in its devices' option ROMs
	HostKeys       []string     `toml:"host_keys" json:"host_keys,omitempty"`             // of a host: its sshd's Ed25519 keys, "ssh-ed25519 AAAA…"
	Updates        string       `toml:"updates" json:"updates,omitempty"`                 // of a host: how it asks whether it may restart, "fleetlock" or "omaha"
	UpdateID       string       `toml:"update_id" json:"update_id,omitempty"`             // and as whom
}

// Link is how a server reaches the network; the zero value is static, through its first Ethernet device.
type Link struct {
	Mode string   `toml:"mode" json:"mode,omitempty"` // "static", "dhcp4" or "dhcp6"
	MACs []string `toml:"macs" json:"macs,omitempty"` // its network devices; several are a bond
	Bond string   `toml:"bond" json:"bond,omitempty"` // "active-backup" or "802.3ad"
	VLAN int      `toml:"vlan" json:"vlan,omitempty"` // 1 to 4094
}

// Server returns the server with this name.
func (f *Fleet) Server(name string) (Server, bool) {
	for _, s := range f.Servers {
		if s.Name == name {
			return s, true
		}
	}
	return Server{}, false
}

// Rebuilt returns the servers that mayfly rebuilds: all but hosts. Plans, lives, tickets and check-in know only these.
func (f *Fleet) Rebuilt() []Server {
	var list []Server
	for _, s := range f.Servers {
		if s.Role != RoleHost {
			list = append(list, s)
		}
	}
	return list
}

// RebuiltServer returns the server with this name unless it is a host.
func (f *Fleet) RebuiltServer(name string) (Server, bool) {
	if s, ok := f.Server(name); ok && s.Role != RoleHost {
		return s, true
	}
	return Server{}, false
}

// AllBastions returns every bastion: those that somebody else installs, and then the servers that are bastions. Whoever asks where
// engineers come from, or may not go, asks here.
func (f *Fleet) AllBastions() []Bastion {
	list := slices.Clone(f.Bastions)
	for _, s := range f.Servers {
		if s.Role == RoleBastion {
			list = append(list, Bastion{Name: s.Name, Address: s.Address.Addr(), Port: PortSSH})
		}
	}
	return list
}

// BastionsOnly reports whether the fleet is bastions and hosts that nobody rebuilds: it needs no controller, regions or racks.
func (f *Fleet) BastionsOnly() bool { return len(f.Servers) > 0 && len(f.Rebuilt()) == 0 }

// Region returns the region with this name.
func (f *Fleet) Region(name string) (Region, bool) {
	for _, r := range f.Regions {
		if r.Name == name {
			return r, true
		}
	}
	return Region{}, false
}

// RegionOf returns the region of the server's rack, or "" if there is no such server.
func (f *Fleet) RegionOf(server string) string {
	s, ok := f.Server(server)
	if !ok {
		return ""
	}
	for _, r := range f.Racks {
		if r.Name == s.Rack {
			return r.Region
		}
	}
	return ""
}

// FQDN returns the name in the server's certificates.
func (f *Fleet) FQDN(server string) string {
	return server + "." + f.Domain
}
