// Package client is a user's end of the VPN: it checks in, registers a key of its own for each session, carries traffic through
// a TUN, and moves to another server before its own goes.
//
// Files in order: client.go (the loop), choose.go (which server), register.go (how a session begins and ends), session.go (what
// one session is), notice.go (how it hears of a drain), leave.go (how an old session ends), routes.go and resolv.go (what the
// system is told), wgquick.go (a session for stock tools), event.go.
//
// Routing. Every session has an interface and a routing table of its own, and a rule `from its inner address`: a connection
// that began on an old session goes on there, while new ones take the new session (make before break). What goes to the servers
// themselves and to check-in carries a mark and stays outside. While there is no session, routed prefixes stay on the dead
// interface: nothing leaks around the tunnel.
//
// It believes the server list only under the fleet's signature, and a server only under the fleet's CA and its own name, with a
// hybrid post-quantum key exchange, because the preshared key comes over that connection.
package client
