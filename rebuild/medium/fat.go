package medium

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Specification constants of FAT16.
const (
	sector        = 512
	dirEntry      = 32
	minClusters   = 4085  // fewer would be FAT12
	maxClusters   = 65524 // more would be FAT32
	maxPerCluster = 64    // sectors: 32 KiB
	fats          = 2
	reserved      = 1 // sectors before the first FAT
	rootEntries   = 512
	fixedMedia    = 0xf8
	endOfChain    = 0xffff

	attrDirectory = 0x10
	attrArchive   = 0x20
	attrLongName  = 0x0f

	bootSignature = 0x29
	firstDate     = 1<<5 | 1 // 1980-01-01, the earliest that FAT knows
)

// Implementation constants.
const (
	firstPerCluster = 8   // sectors: 4 KiB, so that firmware reads few and large pieces
	spareClusters   = 64  // so that a medium is never full to its last cluster
	sectorsPerTrack = 63  // a geometry that nobody uses and everybody checks
	heads           = 255 // the same
)

// file is one file or directory.
type file struct {
	path string
	dir  bool
	data []byte
}

// fat is a FAT16 file system laid out: where each file begins.
type fat struct {
	files      []*placed
	perCluster int // sectors
	clusters   int
	fatSectors int
	id         uint32
	hidden     uint32 // sectors before the partition
}

type placed struct {
	file
	entries []byte // of a directory
	first   int    // cluster; 0 for nothing
	count   int
}

// size is how many bytes of the data area a file or directory takes.
func (p *placed) size() int {
	if p.dir {
		return len(p.entries)
	}
	return len(p.data)
}

// layFAT gives each file its clusters, in the order given, each file's in a row.
func layFAT(files []file, id [sha256.Size]byte) (*fat, error) {
	f := &fat{perCluster: firstPerCluster, id: binary.LittleEndian.Uint32(id[:])}
	for _, one := range files {
		p := &placed{file: one}
		if one.dir {
			p.entries = make([]byte, f.dirSize(one.path, files))
		}
		f.files = append(f.files, p)
	}
	for ; ; f.perCluster *= 2 {
		if f.perCluster > maxPerCluster {
			return nil, fmt.Errorf("more than FAT16 holds")
		}
		next := 2
		for _, p := range f.files {
			bytes := f.perCluster * sector
			p.first, p.count = 0, (p.size()+bytes-1)/bytes
			if p.count > 0 {
				p.first = next
				next += p.count
			}
		}
		if f.clusters = max(next-2+spareClusters, minClusters+spareClusters); f.clusters <= maxClusters {
			break
		}
	}
	f.fatSectors = ((f.clusters+2)*2 + sector - 1) / sector
	for _, p := range f.files {
		if p.dir {
			f.fill(p)
		}
	}
	if n := len(f.entriesOf("")); n > rootEntries*dirEntry {
		return nil, fmt.Errorf("a root directory of %d bytes", n)
	}
	return f, nil
}

func (f *fat) sectors() int64 {
	return int64(reserved+fats*f.fatSectors+rootEntries*dirEntry/sector) + int64(f.clusters)*int64(f.perCluster)
}

// dirSize is of a directory's entries, with its two dots.
func (f *fat) dirSize(dir string, files []file) int {
	n := 2
	for _, one := range files {
		if parent(one.path) == dir {
			n += 1 + longEntries(path.Base(one.path))
		}
	}
	return n * dirEntry
}

func parent(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}

func (f *fat) fill(p *placed) {
	up := 0 // the root has no cluster
	for _, q := range f.files {
		if q.dir && q.path == parent(p.path) {
			up = q.first
		}
	}
	n := copy(p.entries, entry(".          ", attrDirectory, p.first, 0))
	n += copy(p.entries[n:], entry("..         ", attrDirectory, up, 0))
	copy(p.entries[n:], f.entriesOf(p.path))
}

// entriesOf are the entries of what is in a directory, in the order of the names.
func (f *fat) entriesOf(dir string) []byte {
	var in []*placed
	for _, p := range f.files {
		if parent(p.path) == dir {
			in = append(in, p)
		}
	}
	slices.SortFunc(in, func(a, b *placed) int { return cmp.Compare(strings.ToLower(a.path), strings.ToLower(b.path)) })
	var out []byte
	for i, p := range in {
		short, long := names(path.Base(p.path), i+1)
		out = append(out, long...)
		attr, size := byte(attrArchive), len(p.data)
		if p.dir {
			attr, size = attrDirectory, 0
		}
		out = append(out, entry(short, attr, p.first, size)...)
	}
	return out
}

func entry(short string, attr byte, first, size int) []byte {
	e := make([]byte, dirEntry)
	copy(e, short)
	e[11] = attr
	binary.LittleEndian.PutUint16(e[16:], firstDate) // made
	binary.LittleEndian.PutUint16(e[18:], firstDate) // read
	binary.LittleEndian.PutUint16(e[24:], firstDate) // written
	binary.LittleEndian.PutUint16(e[26:], uint16(first))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
	return e
}

// write writes the file system, from its boot sector to its last cluster.
func (f *fat) write(out *output) {
	start := out.n
	out.write(f.bootSector())
	table := make([]byte, f.fatSectors*sector)
	put := func(cluster, value int) { binary.LittleEndian.PutUint16(table[cluster*2:], uint16(value)) }
	put(0, 0xff00|fixedMedia)
	put(1, endOfChain)
	for _, p := range f.files {
		for i := range p.count {
			put(p.first+i, p.first+i+1)
		}
		if p.count > 0 {
			put(p.first+p.count-1, endOfChain)
		}
	}
	for range fats {
		out.write(table)
	}
	root := make([]byte, rootEntries*dirEntry)
	copy(root, f.entriesOf(""))
	out.write(root)
	data := out.n
	for _, p := range f.files {
		if p.count == 0 {
			continue
		}
		out.to(data + int64(p.first-2)*int64(f.perCluster*sector))
		if p.dir {
			out.write(p.entries)
		} else {
			out.write(p.data)
		}
	}
	out.to(start + f.sectors()*sector)
}

func (f *fat) bootSector() []byte {
	b := make([]byte, sector)
	put := binary.LittleEndian
	copy(b, "\xeb\x3c\x90mayfly  ")
	put.PutUint16(b[11:], sector)
	b[13] = byte(f.perCluster)
	put.PutUint16(b[14:], reserved)
	b[16] = fats
	put.PutUint16(b[17:], rootEntries)
	if n := f.sectors(); n < 1<<16 {
		put.PutUint16(b[19:], uint16(n))
	} else {
		put.PutUint32(b[32:], uint32(n))
	}
	b[21] = fixedMedia
	put.PutUint16(b[22:], uint16(f.fatSectors))
	put.PutUint16(b[24:], sectorsPerTrack)
	put.PutUint16(b[26:], heads)
	put.PutUint32(b[28:], f.hidden)
	b[36] = 0x80
	b[38] = bootSignature
	put.PutUint32(b[39:], f.id)
	copy(b[43:], "NO NAME    FAT16   ")
	b[510], b[511] = 0x55, 0xaa
	return b
}
