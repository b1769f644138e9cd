package main

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"mayfly/inventory"
	"mayfly/rebuild/release"
)

const (
	resolverConf = unboundDir + "/resolver.json"
	unboundConf  = unboundDir + "/unbound.conf"
)

// resolverConfig is resolver.json, which `tunnel resolver` reads (its package is not linked here: what is shared is the file).
type resolverConfig struct {
	Address netip.Addr     `json:"address"`
	Network netip.Prefix   `json:"network"`
	Private []netip.Prefix `json:"private"`
	Root    inventory.DNS  `json:"root"`
}

// resolverConfiguration is resolver.json for this server.
func resolverConfiguration(f inventory.Fleet, s inventory.Server) ([]byte, error) {
	data, err := json.MarshalIndent(resolverConfig{
		Address: tunnelAddress(s),
		Network: s.Tunnel.Masked(),
		Private: f.Network.Management,
		Root:    f.DNS,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", resolverConf, err)
	}
	return append(data, '\n'), nil
}

// tunnelAddress is the server's own address in its tunnel: the first host.
func tunnelAddress(s inventory.Server) netip.Addr {
	if !s.Tunnel.IsValid() {
		return netip.Addr{}
	}
	return s.Tunnel.Masked().Addr().Next()
}

// resolverService becomes unbound. It starts once the tunnel's interface, where it answers, is up.
func resolverService() spec {
	return spec{
		name: "unbound", path: release.TunnelPath, args: []string{"resolver", "--config", resolverConf, "--conf", unboundConf},
		after: "tunnel",
	}
}
