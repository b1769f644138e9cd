// Package dnsroot is the test environment's own root of the DNS: a small root zone, signed once with a key that is then
// thrown away, and an authoritative name server that answers from the signed zone file. The servers' resolvers validate what
// it says with the same code that validates the public root; nothing is switched off for the lab.
//
// It serves what a validator asks for and no more: no delegations, no wildcards, no CNAME, no transfers, no updates. Signing refuses
// a zone that would need them (RFC 4034, RFC 4035).
package dnsroot
