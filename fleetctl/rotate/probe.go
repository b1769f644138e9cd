package rotate

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"

	"mayfly/inventory"
)

// TLSProbe asks a server's registration port for its certificate: the fleet's CA must have issued it, for this server's name.
type TLSProbe struct {
	// Config is the client's configuration for a name (internal/pki's VerifyName with the fleet's CA).
	Config func(name string) *tls.Config
	FQDN   func(server string) string
}

var _ Prober = TLSProbe{}

// Probe connects, shakes hands, and hangs up.
func (p TLSProbe) Probe(ctx context.Context, server inventory.Server) error {
	if server.Role == inventory.RoleBastion {
		return nil // it answers nobody but engineers' addresses; its health says whether it serves
	}
	d := tls.Dialer{Config: p.Config(p.FQDN(server.Name))}
	addr := netip.AddrPortFrom(server.Address.Addr(), inventory.PortRegister)
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return fmt.Errorf("probing %s: %w", addr, err)
	}
	return conn.Close()
}
