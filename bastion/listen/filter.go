package listen

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

// Specification constants (linux/filter.h, linux/if_ether.h, RFC 791, RFC 8200).
const (
	netOffset   = 0xfff00000 // SKF_NET_OFF: offsets from here count from the network header
	sourceV4    = netOffset + 12
	sourceV6    = netOffset + 8
	etherTypeV4 = 0x0800
	etherTypeV6 = 0x86dd
	accept      = 0xffffffff // bytes of the packet to keep
	drop        = 0
)

// maxFilter is the kernel's bound for a classic filter (BPF_MAXINSNS).
const maxFilter = 4096

// Filter compiles an address list to a classic BPF program for a listening TCP socket: a segment whose source is in no
// prefix is dropped before TCP sees it, so that its SYN gets no answer at all. An empty list drops everything.
func Filter(prefixes []netip.Prefix) ([]bpf.RawInstruction, error) {
	var v4, v6 []netip.Prefix
	for _, p := range prefixes {
		p = Unmap(p).Masked()
		switch {
		case !p.IsValid():
			return nil, fmt.Errorf("compiling address list: invalid prefix %v", p)
		case p.Addr().Is4():
			v4 = append(v4, p)
		default:
			v6 = append(v6, p)
		}
	}
	programV4, programV6 := matchV4(Widest(v4)), matchV6(Widest(v6))

	// Conditional jumps reach 255 instructions only; Jump reaches them all.
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherTypeV4, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherTypeV6, SkipTrue: 2},
		bpf.RetConstant{Val: drop},
		bpf.Jump{Skip: 1},
		bpf.Jump{Skip: uint32(len(programV4))},
	}
	program = append(program, programV4...)
	program = append(program, programV6...)
	if len(program) > maxFilter {
		return nil, fmt.Errorf("compiling address list: %d prefixes need %d filter instructions, the kernel takes %d",
			len(prefixes), len(program), maxFilter)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("compiling address list: %w", err)
	}
	return raw, nil
}

// chunk is how many comparisons share one "accept", so that conditional jumps reach it.
const chunk = 128

// matchV4 compares, for each prefix length, the masked source with each prefix: one instruction a prefix.
func matchV4(prefixes []netip.Prefix) []bpf.Instruction {
	byLength := make(map[int][]uint32)
	for _, p := range prefixes {
		address := p.Addr().As4()
		byLength[p.Bits()] = append(byLength[p.Bits()], binary.BigEndian.Uint32(address[:]))
	}
	var program []bpf.Instruction
	for _, bits := range slices.Sorted(maps.Keys(byLength)) {
		if bits == 0 {
			return []bpf.Instruction{bpf.RetConstant{Val: accept}}
		}
		program = append(program, loadWord(sourceV4, bits)...)
		for values := range slices.Chunk(byLength[bits], chunk) {
			for i, value := range values {
				program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: uint8(len(values) - i)})
			}
			program = append(program, bpf.Jump{Skip: 1}, bpf.RetConstant{Val: accept})
		}
	}
	return append(program, bpf.RetConstant{Val: drop})
}

func matchV6(prefixes []netip.Prefix) []bpf.Instruction {
	var program []bpf.Instruction
	for _, p := range prefixes {
		address := p.Addr().As16()
		var blocks [][]bpf.Instruction
		// From the last word backwards: each knows how much follows it inside this prefix.
		following := 1
		for word := (p.Bits() + 31) / 32; word > 0; word-- {
			at := (word - 1) * 4
			block := matchWord(sourceV6+uint32(at), address[at:at+4], min(32, p.Bits()-at*8), uint8(following))
			blocks = append(blocks, block)
			following += len(block)
		}
		slices.Reverse(blocks)
		program = append(program, slices.Concat(blocks...)...)
		program = append(program, bpf.RetConstant{Val: accept})
	}
	return append(program, bpf.RetConstant{Val: drop})
}

// matchWord goes on if the first bits of the word at the offset are those of want, and else skips.
func matchWord(offset uint32, want []byte, bits int, skip uint8) []bpf.Instruction {
	return append(loadWord(offset, bits), bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(want), SkipFalse: skip})
}

// loadWord loads the first bits, at least one, of the word at the offset.
func loadWord(offset uint32, bits int) []bpf.Instruction {
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offset, Size: 4}}
	if bits < 32 {
		program = append(program, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << (32 - bits)})
	}
	return program
}

// Widest sorts prefixes and leaves out those that lie inside another.
func Widest(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var kept []netip.Prefix
	for _, p := range prefixes {
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// Unmap turns ::ffff:a.b.c.d/96+n into a.b.c.d/n.
func Unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
