package server

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
)

// pool hands out the addresses of a network at random, so that an address says nothing about who came when. The network's own
// address, the server's and the broadcast address are never given. Not for several goroutines at once.
type pool struct {
	network netip.Prefix
	taken   map[uint32]bool // host numbers
	hosts   uint32          // addresses in the network
}

// MaxPeers bounds the sessions of one server, whatever its network would hold.
const MaxPeers = 4096

func newPool(network netip.Prefix) *pool {
	return &pool{network: network, taken: map[uint32]bool{}, hosts: 1 << (32 - network.Bits())}
}

// capacity is how many addresses can be out at once.
func (p *pool) capacity() int { return min(int(p.hosts)-3, MaxPeers) }

// take returns a free address.
func (p *pool) take() (netip.Addr, bool) {
	if len(p.taken) >= p.capacity() {
		return netip.Addr{}, false
	}
	n := p.random()
	for p.taken[n] {
		if n++; n > p.hosts-2 {
			n = 2
		}
	}
	p.taken[n] = true
	return p.address(n), true
}

func (p *pool) free(a netip.Addr) {
	b := a.As4()
	base := p.network.Addr().As4()
	delete(p.taken, binary.BigEndian.Uint32(b[:])-binary.BigEndian.Uint32(base[:]))
}

func (p *pool) address(n uint32) netip.Addr {
	b := p.network.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

// random is a host number from 2 to hosts-2. A network is at most 2^16, so that the bias of the remainder is below 2^-16.
func (p *pool) random() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return 2 + binary.BigEndian.Uint32(b[:])%(p.hosts-3)
}
