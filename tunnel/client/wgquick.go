package client

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mayfly/tunnel/checkin"
)

// Registered is a session for stock tools.
type Registered struct {
	Server  string     `json:"server"`
	Region  string     `json:"region"`
	Address netip.Addr `json:"address"`
	DNS     netip.Addr `json:"dns"`
	File    string     `json:"file"`

	grant grant
}

// Register checks in, chooses a server and registers a fresh key there, without touching this machine's network.
func Register(ctx context.Context, config checkin.ClientConfig, region string, now time.Time) (Registered, error) {
	l, err := checkin.Fetch(ctx, config, now)
	if err != nil {
		return Registered{}, hintFor(err)
	}
	servers, err := Choose(l, region)
	if err != nil {
		return Registered{}, err
	}
	var last error
	for _, s := range servers[:min(len(servers), triesEach)] {
		g, err := register(ctx, config, s, nil)
		if err != nil {
			last = err
			continue
		}
		return Registered{Server: s.Name, Region: s.Region, Address: g.address, DNS: g.dns, grant: g}, nil
	}
	return Registered{}, last
}

// WGQuick is the session as a file for wg-quick. It holds the keys. With dns false, the resolver is left alone.
func (r Registered) WGQuick(allowed []netip.Prefix, dns bool) []byte {
	if len(allowed) == 0 {
		allowed = []netip.Prefix{everything4, everything6} // IPv6 goes in and ends there: better none than around the tunnel
	}
	var list []string
	for _, p := range allowed {
		list = append(list, p.String())
	}
	g := r.grant
	if dns && !slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(g.dns) }) {
		list = append(list, netip.PrefixFrom(g.dns, g.dns.BitLen()).String())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# A session on %s of mayfly. It ends with the server, at the latest after its day.\n", r.Server)
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\nAddress = %s/32\n", g.private.Base64(), g.address)
	if dns {
		fmt.Fprintf(&b, "DNS = %s\n", g.dns)
	}
	fmt.Fprintf(&b, "MTU = %d\n\n", g.mtu)
	fmt.Fprintf(&b, "[Peer]\nPublicKey = %s\nPresharedKey = %s\n", g.public.Base64(), g.preshared.Base64())
	fmt.Fprintf(&b, "AllowedIPs = %s\nEndpoint = %s\n", strings.Join(list, ", "), g.endpoint)
	if g.keepalive > 0 {
		fmt.Fprintf(&b, "PersistentKeepalive = %d\n", g.keepalive/time.Second)
	}
	return []byte(b.String())
}
