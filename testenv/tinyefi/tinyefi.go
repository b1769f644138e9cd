// Package tinyefi makes the smallest EFI images that tools take for ones, for tests that need a kernel's or a stub's shape and not its work.
// Nothing in them can run.
package tinyefi

import (
	"bytes"
	"encoding/binary"
)

// Offsets in the image.
const (
	Optional = 64 + 24               // the optional header
	Table    = Optional + 112 + 16*8 // the section table
	Security = Optional + 112 + 4*8  // the data directory's entry for certificates
)

const (
	headers       = 1024
	section       = 512
	sectionHeader = 40
)

// Image has headers of 1024 bytes, sections .text and .data, and what is given behind them. There is room for many more section headers.
func Image(behind string) []byte {
	put := binary.LittleEndian
	p := make([]byte, headers)
	copy(p, "MZ")
	put.PutUint32(p[0x3c:], 64)
	copy(p[64:], "PE\x00\x00")
	put.PutUint16(p[68:], 0x8664) // x86-64
	put.PutUint16(p[70:], 2)
	put.PutUint16(p[84:], Table-Optional)
	optional := p[Optional:]
	put.PutUint16(optional, 0x20b)
	put.PutUint32(optional[32:], section)
	put.PutUint32(optional[36:], section)
	put.PutUint32(optional[56:], 0x3000)
	put.PutUint32(optional[60:], headers)
	put.PutUint32(optional[64:], 0xabcdef) // a checksum, which counts for nothing
	put.PutUint16(optional[68:], 10)       // an EFI application
	put.PutUint32(optional[108:], 16)
	for i, name := range []string{".text", ".data"} {
		header := p[Table+i*sectionHeader:]
		copy(header, name)
		put.PutUint32(header[8:], section-12)
		put.PutUint32(header[12:], uint32(0x1000*(i+1)))
		put.PutUint32(header[16:], section)
		put.PutUint32(header[20:], uint32(headers+section*i))
		p = append(p, bytes.Repeat([]byte{byte('a' + i)}, section)...)
	}
	return append(p, behind...)
}
