package medium

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// Specification constants of ISO 9660 and El Torito.
const (
	isoBlock     = 2048
	isoSystem    = 16 // blocks before the first descriptor
	platformEFI  = 0xef
	bootable     = 0x88
	maxLoadCount = 0xffff
)

// Where each part is, in blocks.
const (
	atPrimary = isoSystem + iota
	atBoot
	atEnd
	atCatalog
	atPathLittle
	atPathBig
	atRoot
	atFAT
)

// writeISO writes an ISO 9660 file system whose only file is the EFI system partition.
func writeISO(out *output, f *fat, id [sha256.Size]byte) {
	size := f.sectors() * sector
	blocks := uint32(atFAT + (size+isoBlock-1)/isoBlock)
	root := isoRecord("\x00", atRoot, isoBlock, true)

	primary := descriptor(1, "CD001")
	copy(primary[8:], strings.Repeat(" ", 32)+fmt.Sprintf("%-32s", "MAYFLY"))
	both32(primary[80:], blocks)
	both16(primary[120:], 1) // volumes
	both16(primary[124:], 1) // the number of this one
	both16(primary[128:], isoBlock)
	path := []byte{1, 0, 0, 0, 0, 0, 1, 0, 0, 0}
	both32(primary[132:], uint32(len(path)))
	binary.LittleEndian.PutUint32(primary[140:], atPathLittle)
	binary.BigEndian.PutUint32(primary[148:], atPathBig)
	copy(primary[156:], root)
	copy(primary[190:], strings.Repeat(" ", 623))  // names of people and files, none
	copy(primary[190:], fmt.Sprintf("%X", id[:8])) // the volume set
	for _, at := range []int{813, 830, 847, 864} {
		copy(primary[at:], "0000000000000000\x00") // no date
	}
	primary[881] = 1

	boot := descriptor(0, "CD001")
	copy(boot[7:], "EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(boot[71:], atCatalog)

	// More than the field holds is 0: up to the end of the CD, which is where the partition ends.
	count := f.sectors()
	if count > maxLoadCount {
		count = 0
	}
	catalog := make([]byte, isoBlock)
	catalog[0], catalog[1] = 1, platformEFI
	copy(catalog[4:], "mayfly")
	catalog[30], catalog[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(catalog[i:])
	}
	binary.LittleEndian.PutUint16(catalog[28:], -sum)
	catalog[32] = bootable
	binary.LittleEndian.PutUint16(catalog[38:], uint16(count))
	binary.LittleEndian.PutUint32(catalog[40:], atFAT)

	little, big := block(path, isoBlock), block(path, isoBlock)
	binary.LittleEndian.PutUint32(little[2:], atRoot)
	binary.LittleEndian.PutUint16(little[6:], 1)
	binary.BigEndian.PutUint32(big[2:], atRoot)
	binary.BigEndian.PutUint16(big[6:], 1)

	directory := append(append(append([]byte(nil), root...), isoRecord("\x01", atRoot, isoBlock, true)...), isoRecord("EFI.IMG;1", atFAT, uint32(size), false)...)

	out.to(isoSystem * isoBlock)
	for _, part := range [][]byte{primary, boot, descriptor(255, "CD001"), catalog, little, big, block(directory, isoBlock)} {
		out.write(part)
	}
	f.write(out)
	out.to(int64(blocks) * isoBlock)
}

func descriptor(kind byte, id string) []byte {
	d := make([]byte, isoBlock)
	d[0] = kind
	copy(d[1:], id)
	d[6] = 1
	return d
}

// isoRecord is a directory record, without a date.
func isoRecord(name string, at, size uint32, dir bool) []byte {
	length := 33 + len(name)
	length += length % 2
	r := make([]byte, length)
	r[0] = byte(length)
	both32(r[2:], at)
	both32(r[10:], size)
	copy(r[18:], []byte{80, 1, 1, 0, 0, 0, 0}) // 1980-01-01: some readers take a zero month amiss
	if dir {
		r[25] = 2
	}
	both16(r[28:], 1)
	r[32] = byte(len(name))
	copy(r[33:], name)
	return r
}

// both16 and both32 write a number in both byte orders, one after the other.
func both16(p []byte, n uint16) {
	binary.LittleEndian.PutUint16(p, n)
	binary.BigEndian.PutUint16(p[2:], n)
}

func both32(p []byte, n uint32) {
	binary.LittleEndian.PutUint32(p, n)
	binary.BigEndian.PutUint32(p[4:], n)
}
