package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"mayfly/internal/tomlfile"
)

// Bounds of what a server's ticket carries.
const (
	maxMirrors = 7 // and the controller itself
	maxMACs    = 8
	maxVLAN    = 4094
	maxDrivers = 64
)

// mirrors asks for addresses: a server resolves no names. What a mirror serves is signed.
func (c *checker) mirrors() error {
	if len(c.fleet.Mirrors) > maxMirrors {
		return tomlfile.At("mirrors", "a ticket carries no more", "%d mirrors: at most %d", len(c.fleet.Mirrors), maxMirrors)
	}
	for i, m := range c.fleet.Mirrors {
		path := fmt.Sprintf("mirrors[%d]", i)
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.String() != m || !strings.HasSuffix(u.Path, "/") {
			return tomlfile.At(path, "for example mirrors = [\"https://192.0.2.1:8443/\"]", "mirror %q is not http[s]://ADDRESS:PORT/PATH/", m)
		}
		if ap, err := netip.ParseAddrPort(u.Host); err != nil || ap.String() != u.Host || ap.Port() == 0 || ap.Addr().Zone() != "" {
			return tomlfile.At(path, "give an address and a port: a server resolves no names", "mirror %q names %q", m, u.Host)
		}
		if slices.Contains(c.fleet.Mirrors[:i], m) {
			return tomlfile.At(path, "each mirror once", "mirror %q is listed twice", m)
		}
		c.known[m] = true
	}
	return nil
}

// link checks how a server reaches the network, and what is known of its TPM.
func (c *checker) link(path string, s Server) error {
	n := s.Network
	at := path + ".network"
	if !slices.Contains([]string{"", "static", "dhcp4", "dhcp6"}, n.Mode) {
		return tomlfile.At(at+".mode", "mode = \"static\", \"dhcp4\" or \"dhcp6\"", "server %q has network mode %q", s.Name, n.Mode)
	}
	if len(n.MACs) > maxMACs {
		return tomlfile.At(at+".macs", "a bond has fewer", "server %q has %d network devices: at most %d", s.Name, len(n.MACs), maxMACs)
	}
	for i, m := range n.MACs {
		if hw, err := net.ParseMAC(m); err != nil || len(hw) != 6 || hw[0]&1 != 0 || hw.String() != m || slices.Contains(n.MACs[:i], m) {
			return tomlfile.At(fmt.Sprintf("%s.macs[%d]", at, i), "for example \"52:54:00:00:00:0b\", each once", "server %q: %q is no hardware address, or is there twice", s.Name, m)
		}
	}
	if len(n.MACs) > 1 != (n.Bond != "") || n.Bond != "" && n.Bond != "active-backup" && n.Bond != "802.3ad" {
		return tomlfile.At(at+".bond", "bond = \"active-backup\" or \"802.3ad\", with the devices in macs", "server %q has bond %q over %d devices", s.Name, n.Bond, len(n.MACs))
	}
	if n.VLAN < 0 || n.VLAN > maxVLAN {
		return tomlfile.At(at+".vlan", "from 1 to 4094; leave it out for untagged", "server %q has vlan %d", s.Name, n.VLAN)
	}
	if len(s.Drivers) > maxDrivers {
		return tomlfile.At(path+".drivers", "its devices bring fewer", "server %q has %d drivers: at most %d", s.Name, len(s.Drivers), maxDrivers)
	}
	for i, d := range s.Drivers {
		if !isSHA256(d) || slices.Contains(s.Drivers[:i], d) {
			return tomlfile.At(fmt.Sprintf("%s.drivers[%d]", path, i), "the SHA-256 (Authenticode) of an EFI driver in an option ROM, in lower-case hex, each once", "server %q has driver %.80q, or twice", s.Name, d)
		}
	}
	if s.EndorsementKey != "" && !isSHA256(s.EndorsementKey) {
		return tomlfile.At(path+".endorsement_key", "the SHA-256 of the TPM's endorsement key, in lower-case hex", "server %q has endorsement_key %.80q", s.Name, s.EndorsementKey)
	}
	if other, ok := c.tpms[s.EndorsementKey]; ok && s.EndorsementKey != "" {
		return tomlfile.At(path+".endorsement_key", "each server has a TPM of its own", "servers %q and %q have the same endorsement_key", other, s.Name)
	}
	c.tpms[s.EndorsementKey] = s.Name
	return nil
}

// isSHA256 takes a hash in lower-case hex.
func isSHA256(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && s == strings.ToLower(s)
}
