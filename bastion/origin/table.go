// Package origin says where engineers come from: a table that names networks, and, beside the audit log, which of them each engineer has used.
// It decides nothing; the bastion tells people of what is new.
package origin

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Bounds of a table.
const (
	maxTable       = 4 << 20 // bytes
	maxNetworks    = 65536   // lines
	maxNetworkName = 64      // characters
)

// Networks that count as one where the table has no name.
const (
	unnamedBitsV4 = 24
	unnamedBitsV6 = 48
)

// Table names networks. The longest prefix counts.
type Table struct {
	names map[netip.Prefix]string
	bits4 []int // lengths that occur, longest first
	bits6 []int
}

// ReadTable reads a file of such lines.
func ReadTable(path string) (Table, error) {
	data, err := durable.ReadRegular(path, maxTable)
	if err != nil {
		return Table{}, fmt.Errorf("reading the table of networks: %w", err)
	}
	return parseTable(path, data)
}

// parseTable reads lines "PREFIX NAME"; # begins a comment.
func parseTable(file string, data []byte) (Table, error) {
	t := Table{names: make(map[netip.Prefix]string)}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		fail := func(format string, args ...any) (Table, error) {
			return Table{}, hint.New(fmt.Errorf("%s:%d: %s", file, n, fmt.Sprintf(format, args...)), `a line is "192.0.2.0/24 office"`)
		}
		text, _, _ := strings.Cut(string(line), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return fail("want a prefix and a name")
		}
		p, err := netip.ParsePrefix(fields[0])
		switch {
		case err != nil:
			return fail("%v", err)
		case p != p.Masked():
			return fail("%s has bits after its length: %s", p, p.Masked())
		case p.Addr().Is4In6():
			return fail("%s: write it as IPv4", p)
		case len(fields[1]) > maxNetworkName || strings.ContainsFunc(fields[1], func(r rune) bool { return r <= ' ' || r > '~' }):
			return fail("name %q", fields[1])
		case t.names[p] != "":
			return fail("%s is there twice", p)
		case len(t.names) >= maxNetworks:
			return fail("more than %d networks", maxNetworks)
		}
		t.names[p] = fields[1]
		bits := &t.bits6
		if p.Addr().Is4() {
			bits = &t.bits4
		}
		if !slices.Contains(*bits, p.Bits()) {
			*bits = append(*bits, p.Bits())
		}
	}
	for _, bits := range [][]int{t.bits4, t.bits6} {
		slices.SortFunc(bits, func(a, b int) int { return b - a })
	}
	return t, nil
}

// Name of an address's network: the table's, or the prefix that it is in.
func (t Table) Name(a netip.Addr) string {
	if !a.IsValid() {
		return "nowhere"
	}
	a = a.Unmap().WithZone("")
	bits, unnamed := t.bits6, unnamedBitsV6
	if a.Is4() {
		bits, unnamed = t.bits4, unnamedBitsV4
	}
	for _, n := range bits {
		if p, err := a.Prefix(n); err == nil && t.names[p] != "" {
			return t.names[p]
		}
	}
	return netip.PrefixFrom(a, unnamed).Masked().String()
}
