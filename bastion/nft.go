package bastion

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"mayfly/bastion/listen"
)

// Table of the host's firewall that "bastion nft" writes, if the caller names none.
const NFTTable = "mayfly_bastion"

var nftName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,31}$`)

// NFT writes the address list of what is served as an nftables ruleset of one table, which replaces the table of that name in one step: "nft -f"
// takes all of it or nothing. In it, a SYN to the address's port from anybody else is dropped; nothing else is.
func NFT(r Report, on netip.AddrPort, table string) (string, error) {
	if !nftName.MatchString(table) {
		return "", fmt.Errorf("table %q: letters, digits and _, at most 32", table)
	}
	if on.Port() == 0 {
		return "", fmt.Errorf("port 0 is no port to guard")
	}
	var v4, v6 []netip.Prefix
	for _, prefix := range slices.Concat(r.Allow, r.Proxies) {
		if prefix = listen.Unmap(prefix).Masked(); prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	var to4, to6 string
	switch own := on.Addr().Unmap(); {
	case !own.IsUnspecified() && own.Is4():
		to4 = fmt.Sprintf("ip daddr %s ", own)
	case !own.IsUnspecified():
		to6 = fmt.Sprintf("ip6 daddr %s ", own)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Policy %d: who may reach port %d. Made by \"bastion nft\"; nft -f loads it in one step.\n", r.Policy, on.Port())
	// Adding it first lets a table be deleted that may not be there.
	fmt.Fprintf(&b, "add table inet %s\ndelete table inet %s\ntable inet %s {\n", table, table, table)
	nftSet(&b, "allowed_v4", "ipv4_addr", listen.Widest(v4))
	nftSet(&b, "allowed_v6", "ipv6_addr", listen.Widest(v6))
	const syn = "tcp flags & (fin | syn | rst | ack) == syn"
	fmt.Fprintf(&b, "\tchain input {\n\t\ttype filter hook input priority filter - 10; policy accept;\n")
	if to6 == "" {
		fmt.Fprintf(&b, "\t\t%stcp dport %d %s ip saddr != @allowed_v4 counter drop\n", to4, on.Port(), syn)
	}
	if to4 == "" {
		fmt.Fprintf(&b, "\t\t%stcp dport %d %s ip6 saddr != @allowed_v6 counter drop\n", to6, on.Port(), syn)
	}
	b.WriteString("\t}\n}\n")
	return b.String(), nil
}

func nftSet(b *strings.Builder, name, kind string, prefixes []netip.Prefix) {
	fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n\t\tflags interval\n", name, kind)
	if len(prefixes) > 0 { // nft takes no empty list
		b.WriteString("\t\telements = {\n")
		for _, p := range prefixes {
			fmt.Fprintf(b, "\t\t\t%s,\n", p)
		}
		b.WriteString("\t\t}\n")
	}
	b.WriteString("\t}\n")
}
