// Package device is the data plane of mayfly's VPN: WireGuard on a TUN interface, in this process. It is a thin layer over
// golang.zx2c4.com/wireguard that speaks the protocol as stock clients do.
//
// There is no configuration socket, so that nothing outside the process can read peers or keys. Nothing is logged: the layer
// below gets a logger that discards, and no error of this package holds an address or a key. Of a peer it tells only what is
// needed to let it go again: when it last shook hands and how many bytes passed.
//
// It sets up neither addresses nor routes; server and client do, each in its own way.
package device
