package medium

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Specification constants of long names.
const (
	unitsPerEntry = 13
	lastEntry     = 0x40
	shortName     = 8
	shortSuffix   = 3
)

// longEntries is how many entries the long form of a name takes: none for one that is short and upper-case already.
func longEntries(name string) int {
	if isShort(name) {
		return 0
	}
	return (len(utf16.Encode([]rune(name))) + unitsPerEntry - 1) / unitsPerEntry
}

func isShort(name string) bool {
	base, suffix, _ := strings.Cut(name, ".")
	return name == strings.ToUpper(name) && base != "" && len(base) <= shortName && len(suffix) <= shortSuffix && !strings.Contains(suffix, ".")
}

// names returns a name's short form, padded, and the entries of its long form. number makes short forms of one directory differ.
func names(name string, number int) (short string, long []byte) {
	base, suffix, _ := strings.Cut(name, ".")
	if isShort(name) {
		return fmt.Sprintf("%-8s%-3s", base, suffix), nil
	}
	// The short form is for readers that know no other: its words do not matter.
	tail := fmt.Sprintf("~%d", number)
	short = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(base))
	short = fmt.Sprintf("%-8s%-3s", short[:min(len(short), shortName-len(tail))]+tail, "")
	units := utf16.Encode([]rune(name))
	n := longEntries(name)
	check := byte(0)
	for i := range len(short) {
		check = check>>1 | check<<7
		check += short[i]
	}
	for i := n; i >= 1; i-- {
		e := make([]byte, dirEntry)
		e[0] = byte(i)
		if i == n {
			e[0] |= lastEntry
		}
		e[11], e[13] = attrLongName, check
		for j := range unitsPerEntry {
			unit := uint16(0xffff)
			switch at := (i-1)*unitsPerEntry + j; {
			case at < len(units):
				unit = units[at]
			case at == len(units):
				unit = 0
			}
			binary.LittleEndian.PutUint16(e[unitAt(j):], unit)
		}
		long = append(long, e...)
	}
	return short, long
}

// unitAt is where the j-th character of an entry is.
func unitAt(j int) int {
	switch {
	case j < 5:
		return 1 + j*2
	case j < 11:
		return 14 + (j-5)*2
	}
	return 28 + (j-11)*2
}
