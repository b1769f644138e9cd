// Package dns renders the configuration of a server's own resolver: Debian's unbound, which validates, asks the roots itself,
// answers only inside the tunnel, and keeps nothing but a small cache in memory. It starts nothing and reads nothing.
package dns

import (
	"fmt"
	"net/netip"
	"strings"

	"mayfly/inventory"
)

// Files of Debian's dns-root-data: the public root's servers and key.
const (
	RootHints = "/usr/share/dns/root.hints"
	RootKey   = "/usr/share/dns/root.key"
)

// Limits of the resolver, for one server of some hundred clients.
const (
	cacheTTL       = 300 // seconds, the longest that an answer is kept
	negativeTTL    = 60
	messageCache   = "4m"
	recordCache    = "8m"
	keyCache       = "1m"
	negativeCache  = "512k"
	infraHosts     = 1000
	queriesAtOnce  = 256
	outgoingPorts  = 256
	tcpConnections = 32
	ednsBuffer     = 1232 // bytes: no fragments on the way
)

// Config is what the resolver must know.
type Config struct {
	Address netip.Addr     `json:"address"` // the server's address in the tunnel, where it answers
	Network netip.Prefix   `json:"network"` // who may ask
	Private []netip.Prefix `json:"private"` // no name of the world may lead here: the fleet's management network
	Root    inventory.DNS  `json:"root"`    // a root of the fleet's own; empty: the public one
}

// Check refuses a configuration with which the resolver would answer nobody, or more than its own users.
func (c Config) Check() error {
	if !c.Address.IsValid() || !c.Network.IsValid() || !c.Network.Contains(c.Address) {
		return fmt.Errorf("address %s is not in network %s", c.Address, c.Network)
	}
	return inventory.CheckTunnel(c.Network)
}

// Unbound returns the text of unbound.conf.
func Unbound(c Config) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	yes := func(keys ...string) { each(&b, keys, "yes") }
	no := func(keys ...string) { each(&b, keys, "no") }

	line("server:")
	line("\tusername: \"unbound\"")
	line("\tchroot: \"\"")
	line("\tdirectory: \"/\"")
	line("\tpidfile: \"\"")
	no("use-systemd", "do-daemonize")
	line("\tnum-threads: 1")

	line("\t# Nothing is written down.")
	line("\tverbosity: 0")
	line("\tlogfile: \"\"")
	line("\tval-log-level: 0")
	line("\tstatistics-interval: 0")
	no("use-syslog", "log-queries", "log-replies", "log-local-actions", "log-servfail", "extended-statistics")

	line("\t# Only the tunnel is answered.")
	line("\tinterface: %s", c.Address)
	line("\tport: %d", inventory.PortDNS)
	no("interface-automatic", "do-ip6")
	yes("ip-freebind")
	line("\taccess-control: 0.0.0.0/0 refuse")
	line("\taccess-control: 127.0.0.0/8 refuse")
	line("\taccess-control: ::/0 refuse")
	line("\taccess-control: %s allow", c.Network.Masked())

	line("\t# Answers are validated, and the roots learn no more of a name than they must.")
	line("\tmodule-config: \"validator iterator\"")
	yes("qname-minimisation", "aggressive-nsec", "minimal-responses", "hide-identity", "hide-version", "deny-any")
	yes("harden-glue", "harden-dnssec-stripped", "harden-below-nxdomain", "harden-algo-downgrade", "harden-large-queries",
		"harden-short-bufsize")
	no("prefetch", "serve-expired", "val-permissive-mode")
	for _, p := range c.Private {
		line("\tprivate-address: %s", p.Masked())
	}

	line("\t# Memory is bounded, and forgets soon.")
	line("\tcache-max-ttl: %d", cacheTTL)
	line("\tcache-max-negative-ttl: %d", negativeTTL)
	line("\tinfra-host-ttl: %d", cacheTTL)
	line("\tmsg-cache-size: %s", messageCache)
	line("\trrset-cache-size: %s", recordCache)
	line("\tkey-cache-size: %s", keyCache)
	line("\tneg-cache-size: %s", negativeCache)
	line("\tinfra-cache-numhosts: %d", infraHosts)
	line("\tnum-queries-per-thread: %d", queriesAtOnce)
	line("\toutgoing-range: %d", 2*outgoingPorts)
	line("\tincoming-num-tcp: %d", tcpConnections)
	line("\toutgoing-num-tcp: %d", tcpConnections)
	line("\tedns-buffer-size: %d", ednsBuffer)

	root(line, c.Root)
	line("remote-control:")
	no("control-enable")
	return []byte(b.String())
}

func each(b *strings.Builder, keys []string, value string) {
	for _, k := range keys {
		fmt.Fprintf(b, "\t%s: %s\n", k, value)
	}
}

// root names the root zone's servers and key. A root of the fleet's own brings its own anchors: the public key would make
// every answer below it bogus.
func root(line func(string, ...any), d inventory.DNS) {
	line("\t# The root.")
	for _, a := range d.TrustAnchors {
		line("\ttrust-anchor: \"%s\"", quoted(a))
	}
	if len(d.Roots) == 0 {
		line("\troot-hints: \"%s\"", RootHints)
		if len(d.TrustAnchors) == 0 {
			line("\ttrust-anchor-file: \"%s\"", RootKey)
		}
		return
	}
	line("\tlocal-zone: \"test.\" nodefault") // a root of one's own may well hold .test
	line("stub-zone:")
	line("\tname: \".\"")
	for _, r := range d.Roots {
		line("\tstub-addr: %s", r.Address)
	}
	line("\tstub-prime: no")
}

// quoted keeps a record from leaving its quotes. Inventory has checked that it is one record.
func quoted(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' || r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
}
