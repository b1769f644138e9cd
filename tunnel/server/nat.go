package server

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"mayfly/inventory"
)

// Table is the nftables table of the tunnel. Nothing else writes to it.
const Table = "mayfly_tunnel"

// linkLocal is what a machine reaches on its own link alone (RFC 3927). Linux would forward it.
var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// firewall writes the whole table anew, in one transaction. In nft's own words:
//
//	table inet mayfly_tunnel {
//	  chain forward { type filter hook forward priority filter; policy drop
//	    iifname mayfly0 oifname mayfly0 drop
//	    iifname mayfly0 ip daddr MANAGEMENT drop          # one rule for each prefix
//	    iifname mayfly0 ip daddr 169.254.0.0/16 drop      # the server's own link, and a cloud's metadata
//	    iifname mayfly0 oifname OUTSIDE ip saddr NETWORK accept
//	    iifname OUTSIDE oifname mayfly0 ct state established,related accept
//	  }
//	  chain input { type filter hook input priority filter; policy accept
//	    iifname mayfly0 ip daddr ADDRESS udp dport 53 accept
//	    iifname mayfly0 ip daddr ADDRESS tcp dport 53 accept
//	    iifname mayfly0 ip daddr ADDRESS tcp dport 7444 accept
//	    iifname mayfly0 ip daddr ADDRESS icmp type echo-request accept
//	    iifname mayfly0 drop
//	    iifname != mayfly0 iifname != lo ip daddr NETWORK drop
//	  }
//	  chain postrouting { type nat hook postrouting priority srcnat; policy accept
//	    oifname OUTSIDE ip saddr NETWORK masquerade
//	  }
//	}
func firewall(c Config) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
	conn.AddTable(table) // so that the deletion always finds one
	conn.DelTable(table)
	conn.AddTable(table)
	r := ruler{conn: conn, table: table}

	drop, accept := nftables.ChainPolicyDrop, nftables.ChainPolicyAccept
	r.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, &drop)
	r.rule(in(Interface), out(Interface), verdict(expr.VerdictDrop))
	for _, m := range c.Management {
		r.rule(in(Interface), to(m), verdict(expr.VerdictDrop))
	}
	r.rule(in(Interface), to(linkLocal), verdict(expr.VerdictDrop))
	r.rule(in(Interface), out(c.Outside), from(c.Network), verdict(expr.VerdictAccept))
	r.rule(in(c.Outside), out(Interface), established(), verdict(expr.VerdictAccept))

	self := netip.PrefixFrom(c.Address(), c.Address().BitLen())
	r.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, &accept)
	r.rule(in(Interface), to(self), port(unix.IPPROTO_UDP, inventory.PortDNS), verdict(expr.VerdictAccept))
	r.rule(in(Interface), to(self), port(unix.IPPROTO_TCP, inventory.PortDNS), verdict(expr.VerdictAccept))
	r.rule(in(Interface), to(self), port(unix.IPPROTO_TCP, inventory.PortNotice), verdict(expr.VerdictAccept))
	r.rule(in(Interface), to(self), echo(), verdict(expr.VerdictAccept))
	r.rule(in(Interface), verdict(expr.VerdictDrop))
	r.rule(notIn(Interface), notIn("lo"), to(c.Network), verdict(expr.VerdictDrop))

	r.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, &accept)
	r.rule(out(c.Outside), from(c.Network), []expr.Any{&expr.Masq{}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("writing the nftables table %s: %w", Table, err)
	}
	return nil
}

// removeFirewall takes the table away.
func removeFirewall() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: Table})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("removing the nftables table %s: %w", Table, err)
	}
	return nil
}

// ruler appends rules to the chain begun last.
type ruler struct {
	conn    *nftables.Conn
	table   *nftables.Table
	current *nftables.Chain
}

func (r *ruler) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, policy *nftables.ChainPolicy) {
	r.current = r.conn.AddChain(&nftables.Chain{
		Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: priority, Policy: policy,
	})
}

func (r *ruler) rule(parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: r.current, Exprs: all})
}

func in(name string) []expr.Any    { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func notIn(name string) []expr.Any { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }
func out(name string) []expr.Any   { return ifname(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }

func ifname(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: padded}}
}

// Offsets of the addresses in the IP headers.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
)

func from(p netip.Prefix) []expr.Any { return address(p, source4, source6) }
func to(p netip.Prefix) []expr.Any   { return address(p, destination4, destination6) }

func address(p netip.Prefix, offset4, offset6 uint32) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), offset4
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, offset6
	}
	size := p.Addr().BitLen() / 8
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func port(proto byte, number uint16) []expr.Any {
	return append(protocol(proto),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
	)
}

func echo() []expr.Any {
	const echoRequest = 8
	return append(protocol(unix.IPPROTO_ICMP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{echoRequest}},
	)
}

func established() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
