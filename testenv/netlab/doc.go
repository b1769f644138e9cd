// Package netlab makes the test environment's network: one Linux network namespace for each role, joined by a bridge, veth
// pairs and taps. The host's own namespace gets no interface, address, route or rule from it, so that a firewall on the host
// (Docker's FORWARD policy, for example) neither sees nor breaks the lab, and nothing in it can be reached from outside.
//
//	            core: mf0 10.77.0.1/24 (controller), 10.77.0.2 (bastion)
//	            taps on mf0: the servers' machines, 10.77.0.11 …
//	 198.51.100.1/24 |                        | 203.0.113.1/24
//	client: 198.51.100.10, .66          target: 203.0.113.10 (web), .53 (DNS root)
//
// A fourth namespace, cards, has loopback alone.
//
// The target has a route to 10.77.0.0/24 and none to the client: what reaches it from the client came through a server's NAT.
//
// It needs CAP_SYS_ADMIN and CAP_NET_ADMIN. It starts no program of its own.
package netlab
