// Package erofs writes and reads EROFS file systems, the read-only format of the kernel's, with what the root of a server needs of it: files,
// directories and symbolic links; files are compressed with LZ4 in clusters of one block. What Write writes depends on nothing but the files
// and the epoch. Read is for looking into an image from outside: it holds all that it is told to bounds, and follows no pointer twice.
//
// References: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h in the kernel's sources; lz4_Block_format.md of LZ4.
//
// Read in this order: format.go (what is on disk), lz4.go (one block), compress.go (one file), directory.go, write.go, read.go.
package erofs

import (
	"io/fs"
)

// Specification constants.
const (
	magic            = 0xe0f5e1e2
	superblockOffset = 1024
	superblockSize   = 128
	checksumFlag     = 1 // compatible feature: the superblock has a checksum
	zeroPaddingFlag  = 1 // incompatible feature: LZ4's data end where their block ends
	blockBits        = 12
	blockSize        = 1 << blockBits

	inodeSize     = 32 // the compact form: its time is the superblock's
	inodeSlot     = 32 // what inode numbers count
	dirEntrySize  = 12
	indexSize     = 8
	indexOverhead = 16 // header and a hole before a file's indexes

	layoutPlain      = 0
	layoutCompressed = 1 // with full indexes
	layoutInline     = 2 // the tail lies behind the inode

	indexPlain   = 0
	indexHead    = 1
	indexNonhead = 2

	typeRegular = 0o100000
	typeDir     = 0o040000
	typeSymlink = 0o120000
)

// Types of directory entries.
const (
	entryRegular = 1
	entryDir     = 2
	entrySymlink = 7
)

// Implementation constants: bounds of an image.
const (
	MaxImage   = 1 << 30 // bytes of an image
	maxContent = 1 << 30 // bytes of all files
	maxFiles   = 100_000
	maxName    = 255
	maxLink    = 4000
	maxDepth   = 64
)

// File is a file, a directory or a symbolic link. Data is a file's content or a link's target. Owners are root.
type File struct {
	Path string // relative, "." is the root
	Mode fs.FileMode
	Data []byte
}

// diskMode is a mode as it is on disk.
func diskMode(m fs.FileMode) (mode uint16, entry byte, ok bool) {
	mode = uint16(m.Perm())
	if m&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	switch m.Type() {
	case 0:
		return mode | typeRegular, entryRegular, true
	case fs.ModeDir:
		return mode | typeDir, entryDir, true
	case fs.ModeSymlink:
		return mode | typeSymlink, entrySymlink, true
	}
	return 0, 0, false
}

// fileMode is the other way round.
func fileMode(mode uint16) (m fs.FileMode, entry byte, ok bool) {
	m = fs.FileMode(mode & 0o777)
	if mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	switch mode &^ 0o1777 {
	case typeRegular:
		return m, entryRegular, true
	case typeDir:
		return m | fs.ModeDir, entryDir, true
	case typeSymlink:
		return m | fs.ModeSymlink, entrySymlink, true
	}
	return 0, 0, false
}

func blocks(n int) int { return (n + blockSize - 1) / blockSize }
