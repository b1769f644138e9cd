package erofs

import (
	"encoding/binary"
	"errors"
)

// Specification constants of LZ4 blocks.
const (
	minMatch     = 4
	maxOffset    = 1<<16 - 1
	lastLiterals = 5  // an end without a match
	matchMargin  = 12 // no match begins in the last bytes
	runMask      = 15
)

// Implementation constants of the search.
const (
	hashBits = 15
	window   = 1 << 16
	depth    = 24 // earlier places that are compared
)

// finder finds matches in one file.
type finder struct {
	src  []byte
	next int // the first position that is not in the chains
	head [1 << hashBits]int32
	prev [window]int32
}

// reset begins another file.
func (f *finder) reset(src []byte) {
	f.src, f.next = src, 0
	for i := range f.head {
		f.head[i] = -1
	}
}

func (f *finder) hash(at int) uint32 {
	return binary.LittleEndian.Uint32(f.src[at:]) * 2654435761 >> (32 - hashBits)
}

// longest finds the longest match at a position that begins at least at low.
func (f *finder) longest(at, low int) (length, offset int) {
	for ; f.next <= at; f.next++ {
		h := f.hash(f.next)
		f.prev[f.next%window] = f.head[h]
		f.head[h] = int32(f.next)
	}
	low = max(low, at-maxOffset)
	src, end := f.src, len(f.src)-lastLiterals
	here := binary.LittleEndian.Uint32(src[at:])
	candidate := int(f.head[f.hash(at)])
	for tries := depth; candidate >= low && tries > 0; candidate = int(f.prev[candidate%window]) {
		if candidate >= at {
			continue
		}
		tries--
		if length > 0 && src[candidate+length] != src[at+length] || binary.LittleEndian.Uint32(src[candidate:]) != here {
			continue
		}
		n := minMatch
		for at+n+8 <= end && binary.LittleEndian.Uint64(src[candidate+n:]) == binary.LittleEndian.Uint64(src[at+n:]) {
			n += 8
		}
		for at+n < end && src[candidate+n] == src[at+n] {
			n++
		}
		if n > length {
			if length, offset = n, at-candidate; at+n >= end {
				break
			}
		}
	}
	return length, offset
}

// extra is how many bytes a length takes beside the token.
func extra(n int) int {
	if n < runMask {
		return 0
	}
	return (n-runMask)/255 + 1
}

func appendLength(dst []byte, n int) []byte {
	if n < runMask {
		return dst
	}
	for n -= runMask; n >= 255; n -= 255 {
		dst = append(dst, 255)
	}
	return append(dst, byte(n))
}

// compress fills dst, up to room bytes, with an LZ4 block of as much as possible of the file from start on, and tells how much that is.
func (f *finder) compress(dst []byte, room, start int) (out []byte, consumed int) {
	// After the last match there have to be literals, so that no match begins in the last bytes.
	const reserve = 1 + matchMargin - minMatch
	out, src := dst[:0], f.src
	anchor := start
	for at := start; at+matchMargin <= len(src); {
		if len(out)+1+at-anchor+reserve > room {
			break
		}
		length, offset := f.longest(at, start)
		if length < minMatch {
			at++
			continue
		}
		for at+1+matchMargin <= len(src) { // a longer one may begin right behind
			l, o := f.longest(at+1, start)
			if l <= length {
				break
			}
			at, length, offset = at+1, l, o
		}
		literals := at - anchor
		if len(out)+1+extra(literals)+literals+2+extra(length-minMatch)+reserve > room {
			break
		}
		out = append(out, byte(min(literals, runMask)<<4|min(length-minMatch, runMask)))
		out = append(appendLength(out, literals), src[anchor:at]...)
		out = binary.LittleEndian.AppendUint16(out, uint16(offset))
		out = appendLength(out, length-minMatch)
		at += length
		anchor = at
	}
	rest := min(room-len(out)-1, len(src)-anchor)
	for 1+extra(rest)+rest > room-len(out) {
		rest--
	}
	out = append(out, byte(min(rest, runMask)<<4))
	out = append(appendLength(out, rest), src[anchor:anchor+rest]...)
	return out, anchor + rest - start
}

var errLZ4 = errors.New("bad LZ4 data")

// decompress fills dst from an LZ4 block, which has to hold just that.
func decompress(dst, src []byte) error {
	at := 0
	number := func(n int) (int, bool) {
		if n < runMask {
			return n, true
		}
		for {
			if len(src) == 0 || n > len(dst) {
				return 0, false
			}
			more := int(src[0])
			src, n = src[1:], n+more
			if more != 255 {
				return n, true
			}
		}
	}
	for {
		if len(src) == 0 {
			return errLZ4
		}
		token := int(src[0])
		src = src[1:]
		literals, ok := number(token >> 4)
		if !ok || literals > len(src) || literals > len(dst)-at {
			return errLZ4
		}
		copy(dst[at:], src[:literals])
		src, at = src[literals:], at+literals
		if len(src) == 0 {
			if at != len(dst) || token&runMask != 0 {
				return errLZ4
			}
			return nil
		}
		if len(src) < 2 {
			return errLZ4
		}
		offset := int(binary.LittleEndian.Uint16(src))
		src = src[2:]
		length, ok := number(token & runMask)
		length += minMatch
		if !ok || offset == 0 || offset > at || length > len(dst)-at {
			return errLZ4
		}
		if offset >= length {
			at += copy(dst[at:at+length], dst[at-offset:])
			continue
		}
		for range length { // it overlaps with itself
			dst[at] = dst[at-offset]
			at++
		}
	}
}
