package policies

import "net/netip"

// Balancer tells whether connections from an address have to begin with a PROXY protocol header, whose address is then decided
// upon: the list of balancers comes before ssh.allow.
func (p Policy) Balancer(addr netip.Addr) bool {
	_, ok := listed(p.SSH.Proxies, addr)
	return ok
}

// Exempt tells whether a source collects no penalties for failed logins.
func (p Policy) Exempt(addr netip.Addr) bool {
	_, ok := listed(p.SSH.PenaltyExempt, addr)
	return ok
}
