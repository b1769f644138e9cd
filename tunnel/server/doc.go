// Package server is the VPN on a server: WireGuard with NAT to the outside, a registration endpoint that gives each session its
// own address and preshared key, and a control socket through which mayfly-init drains it.
//
// Read in this order: config.go (what it is told), server.go (the parts and how they end), register.go (how a session begins),
// peers.go and pool.go (what is kept of it), notice.go and drain.go (how it moves away), nat.go and link.go (what the kernel is
// told), limits.go, certificate.go, control.go.
//
// What is known of a user is the public key, the inner address and, in the WireGuard device, the outer address of the last
// packet; it lies in memory, and goes when the user releases the session or PeerExpiry after the last handshake. No address,
// key or name of a user is ever logged or written anywhere: loggers of the libraries below are silenced, and log records hold
// nothing but the server's own events and reason codes.
//
// It trusts its configuration and whoever can open the control socket (0600). It trusts no client: bodies are small and parsed
// strictly, every table is bounded, and a client reaches nothing through the tunnel but the outside, the resolver and the notice.
package server
