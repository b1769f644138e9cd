package medium

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

// Specification constants of the GUID partition table.
const (
	gptEntries   = 128
	gptEntry     = 128
	gptHeader    = 92
	gptSectors   = gptEntries * gptEntry / sector
	firstUsable  = 2 + gptSectors
	protectiveID = 0xee
)

// partitionAt is the partition's first sector: at a mebibyte, as everybody has it.
const partitionAt = 2048

// guidESP is the type of an EFI system partition.
var guidESP = []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}

// writeGPT writes a protective MBR, the table, the partition, and the table once more.
func writeGPT(out *output, f *fat, id [sha256.Size]byte) {
	f.hidden = partitionAt
	last := uint64(partitionAt) + uint64(f.sectors()) - 1
	sectors := last + 1 + gptSectors + 1
	put := binary.LittleEndian

	mbr := make([]byte, sector)
	put.PutUint32(mbr[440:], binary.LittleEndian.Uint32(id[4:]))
	copy(mbr[446:], []byte{0, 0, 2, 0, protectiveID, 0xff, 0xff, 0xff})
	put.PutUint32(mbr[454:], 1)
	put.PutUint32(mbr[458:], uint32(min(sectors-1, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa

	entries := make([]byte, gptEntries*gptEntry)
	copy(entries, guidESP)
	copy(entries[16:], derivedGUID(id, "partition"))
	put.PutUint64(entries[32:], partitionAt)
	put.PutUint64(entries[40:], last)
	for i, unit := range utf16.Encode([]rune("mayfly")) {
		put.PutUint16(entries[56+i*2:], unit)
	}
	header := func(self, other, table uint64) []byte {
		h := make([]byte, sector)
		copy(h, "EFI PART")
		put.PutUint32(h[8:], 0x00010000)
		put.PutUint32(h[12:], gptHeader)
		put.PutUint64(h[24:], self)
		put.PutUint64(h[32:], other)
		put.PutUint64(h[40:], firstUsable)
		put.PutUint64(h[48:], last)
		copy(h[56:], derivedGUID(id, "disk"))
		put.PutUint64(h[72:], table)
		put.PutUint32(h[80:], gptEntries)
		put.PutUint32(h[84:], gptEntry)
		put.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		put.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeader]))
		return h
	}
	out.write(mbr)
	out.write(header(1, sectors-1, 2))
	out.write(entries)
	out.to(partitionAt * sector)
	f.write(out)
	out.write(entries)
	out.write(header(sectors-1, 1, last+1))
}

// derivedGUID makes a GUID (version 8) from what is on the medium.
func derivedGUID(id [sha256.Size]byte, what string) []byte {
	sum := sha256.Sum256(append([]byte("mayfly medium "+what+"\n"), id[:]...))
	g := sum[:16]
	g[7], g[8] = g[7]&0x0f|0x80, g[8]&0x3f|0x80
	return g
}
