package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"mayfly/inventory"
)

// hostTable is this program's own; the tunnel has another.
const hostTable = "mayfly_host"

// pass is one line of a chain. Zero fields match anything.
type pass struct {
	in      string       // interface
	state   bool         // packets of connections that are there already
	proto   byte         // IPPROTO_*
	from    netip.Addr   // IPv4
	net     netip.Prefix // IPv4: from anywhere in it
	to      netip.Addr   // IPv4
	port    uint16       // destination
	ping    bool         // ICMP echo requests, a bounded number
	discard bool         // drop instead of accept
	invalid bool         // packets that belong to no connection and begin none
	users   uint32       // of a socket that this user, or one with a higher number, made
	groups  uint32       // likewise, the group
}

// sendRules is what may go out, of a chain whose policy is to accept: nothing of an engineer's programs, loopback included. A shell
// needs no network: its own connection is a socket that sshd, root, accepted. The group catches what is set-user-ID.
func sendRules() []pass {
	return []pass{
		{users: firstUID, discard: true},
		{groups: firstUID, discard: true},
	}
}

// hostRules is what may come in, of a chain whose policy is to drop: SSH from bastions only; WireGuard and registration from anywhere; from inside the tunnel the
// resolver and the notice port on the tunnel's own address, and nothing of the host.
func hostRules(bastions []netip.Addr, tunnel netip.Addr) []pass {
	rules := []pass{
		{in: "lo"},
		{invalid: true, discard: true},
		{state: true},
	}
	sorted := slices.Clone(bastions)
	slices.SortFunc(sorted, netip.Addr.Compare)
	for _, b := range slices.Compact(sorted) {
		rules = append(rules, pass{in: outside, proto: unix.IPPROTO_TCP, from: b, port: inventory.PortSSH})
	}
	rules = append(rules,
		pass{in: outside, proto: unix.IPPROTO_ICMP, ping: true},
		pass{in: outside, proto: unix.IPPROTO_UDP, port: inventory.PortTunnel},
		pass{in: outside, proto: unix.IPPROTO_TCP, port: inventory.PortRegister},
	)
	if tunnel.IsValid() {
		rules = append(rules,
			pass{in: tunnelInterface, proto: unix.IPPROTO_UDP, to: tunnel, port: inventory.PortDNS},
			pass{in: tunnelInterface, proto: unix.IPPROTO_TCP, to: tunnel, port: inventory.PortDNS},
			pass{in: tunnelInterface, proto: unix.IPPROTO_TCP, to: tunnel, port: inventory.PortNotice},
		)
	}
	return rules
}

// bastionRules is what may come in to a bastion, of a chain whose policy is to drop: SSH from the policy's addresses, and nothing else.
func bastionRules(allow []netip.Prefix) []pass {
	rules := []pass{
		{in: "lo"},
		{invalid: true, discard: true},
		{state: true},
	}
	for _, n := range allow {
		rules = append(rules, pass{in: outside, proto: unix.IPPROTO_TCP, net: n, port: inventory.PortSSH})
	}
	return rules
}

// checkRules refuses a line that would match more than its author can have meant.
func checkRules(rules []pass) error {
	for i, r := range rules {
		switch {
		case r == pass{} || r == pass{in: outside} || r == pass{in: tunnelInterface}:
			return fmt.Errorf("line %d of the packet filter lets everything in", i+1)
		case (r.from.IsValid() && !r.from.Is4()) || (r.to.IsValid() && !r.to.Is4()) || (r.net.IsValid() && !r.net.Addr().Is4()):
			return fmt.Errorf("line %d of the packet filter has an address that is not IPv4", i+1)
		case r.port != 0 && r.proto != unix.IPPROTO_TCP && r.proto != unix.IPPROTO_UDP:
			return fmt.Errorf("line %d of the packet filter has a port without a protocol", i+1)
		case r.port == inventory.PortSSH && !r.from.IsValid() && !r.net.IsValid():
			return fmt.Errorf("line %d of the packet filter opens SSH to everybody", i+1)
		}
	}
	return nil
}

// applyRules replaces the host's table in one transaction: these lines for what comes in, sendRules for what goes out.
func applyRules(c *nftables.Conn, rules []pass) error {
	if err := checkRules(rules); err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: hostTable})
	c.FlushTable(table)
	drop := nftables.ChainPolicyDrop
	input := c.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	for _, r := range rules {
		c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: r.expressions()})
	}
	accept := nftables.ChainPolicyAccept
	output := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	for _, r := range sendRules() {
		c.AddRule(&nftables.Rule{Table: table, Chain: output, Exprs: r.expressions()})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("setting the packet filter: %w", err)
	}
	return nil
}

// expressions is the line as the kernel's instructions.
func (r pass) expressions() []expr.Any {
	var e []expr.Any
	if r.in != "" {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, r.in)
		e = append(e, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(name))
	}
	if r.state {
		e = append(e, connection(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)...)
	}
	if r.invalid {
		e = append(e, connection(expr.CtStateBitINVALID)...)
	}
	if r.users != 0 {
		e = append(e, atLeast(expr.MetaKeySKUID, r.users)...)
	}
	if r.groups != 0 {
		e = append(e, atLeast(expr.MetaKeySKGID, r.groups)...)
	}
	if r.from.IsValid() || r.to.IsValid() || r.net.IsValid() || r.ping {
		e = append(e, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{unix.NFPROTO_IPV4}))
	}
	if r.from.IsValid() {
		e = append(e, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, equal(r.from.AsSlice()))
	}
	if r.net.IsValid() {
		mask := net.CIDRMask(r.net.Bits(), 32)
		e = append(e, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)}, equal(r.net.Masked().Addr().AsSlice()))
	}
	if r.to.IsValid() {
		e = append(e, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, equal(r.to.AsSlice()))
	}
	if r.proto != 0 {
		e = append(e, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{r.proto}))
	}
	if r.port != 0 {
		e = append(e, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, equal(binary.BigEndian.AppendUint16(nil, r.port)))
	}
	if r.ping {
		e = append(e, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, equal([]byte{8}), // echo request
			&expr.Limit{Type: expr.LimitTypePkts, Rate: 20, Unit: expr.LimitTimeSecond, Burst: 10})
	}
	verdict := expr.VerdictAccept
	if r.discard {
		verdict = expr.VerdictDrop
	}
	return append(e, &expr.Verdict{Kind: verdict})
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// atLeast matches a number of the packet's socket. The kernel compares bytes, so the number is turned to network order first.
func atLeast(key expr.MetaKey, least uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: binary.BigEndian.AppendUint32(nil, least)},
	}
}

// connection matches any of the conntrack states.
func connection(states uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(states), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}
