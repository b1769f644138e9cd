package main

import (
	"net/netip"

	"mayfly/inventory"
	"mayfly/tunnel/dns"
)

const (
	dnsPort     = 53
	unboundPath = "/usr/sbin/unbound"
	unboundConf = unboundDir + "/unbound.conf"
)

// resolverConfiguration is unbound.conf for this server: the text is the tunnel's, which knows who asks.
func resolverConfiguration(f inventory.Fleet, s inventory.Server) []byte {
	return dns.Unbound(dns.Config{
		Address: tunnelAddress(s),
		Network: s.Tunnel.Masked(),
		Private: f.Network.Management,
		Root:    f.DNS,
	})
}

// tunnelAddress is the server's own address in its tunnel: the first host.
func tunnelAddress(s inventory.Server) netip.Addr {
	if !s.Tunnel.IsValid() {
		return netip.Addr{}
	}
	return s.Tunnel.Masked().Addr().Next()
}

// resolverService starts once the tunnel's interface, where it answers, is up.
func resolverService() spec {
	return spec{name: "unbound", path: unboundPath, args: []string{"-d", "-p", "-c", unboundConf}, after: "tunnel"}
}
