package erofs

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// inode is a file on its way into an image.
type inode struct {
	file   File
	kind   byte
	mode   uint16
	names  []string // of a directory, sorted, with "." and ".."
	inside map[string]*inode
	parent *inode
	links  int

	size    int
	packed  packed
	layout  int
	tail    int // bytes that lie behind the inode
	at      int // of the inode, in the metadata
	blocks  int // that it takes of the data
	content []byte
}

// Write writes an image. Each file's directory has to come before it, the root first. All times are the epoch.
func Write(ctx context.Context, w io.Writer, files []File, epoch int64) error {
	inodes, err := link(files)
	if err != nil {
		return fmt.Errorf("writing an EROFS image: %w", err)
	}
	if err := packAll(ctx, inodes); err != nil {
		return fmt.Errorf("writing an EROFS image: %w", err)
	}
	head := make([]byte, blocks(lay(inodes))*blockSize)
	total := len(head) / blockSize
	for i, n := range inodes {
		n.write(head, uint32(i+1), uint32(total))
		total += n.blocks
	}
	writeSuperblock(head, inodes, epoch, uint32(total))
	if total > MaxImage/blockSize {
		return fmt.Errorf("writing an EROFS image: larger than %d bytes", MaxImage)
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("writing an EROFS image: %w", err)
	}
	for _, n := range inodes {
		data := n.packed.blocks
		if n.layout != layoutCompressed {
			data = n.content[:min(n.blocks*blockSize, len(n.content))]
		}
		fill := n.blocks*blockSize - len(data)
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("writing an EROFS image: %w", err)
		}
		if _, err := w.Write(make([]byte, fill)); err != nil {
			return fmt.Errorf("writing an EROFS image: %w", err)
		}
	}
	return nil
}

// link makes a tree of the files.
func link(files []File) ([]*inode, error) {
	if len(files) == 0 || len(files) > maxFiles || files[0].Path != "." || !files[0].Mode.IsDir() {
		return nil, fmt.Errorf("%d files, the first of which has to be the root", len(files))
	}
	all := map[string]*inode{}
	var out []*inode
	for _, f := range files {
		n := &inode{file: f, links: 1, size: len(f.Data)}
		var ok bool
		if n.mode, n.kind, ok = diskMode(f.Mode); !ok {
			return nil, fmt.Errorf("%s: file type %v is not supported", f.Path, f.Mode.Type())
		}
		if f.Mode.IsDir() {
			n.links, n.inside = 2, map[string]*inode{}
		}
		if path.Clean(f.Path) != f.Path || path.IsAbs(f.Path) || all[f.Path] != nil || n.kind == entrySymlink && (n.size == 0 || n.size > maxLink) {
			return nil, fmt.Errorf("bad path or link %q", f.Path)
		}
		all[f.Path] = n
		out = append(out, n)
		if f.Path == "." {
			n.parent = n
			continue
		}
		name := path.Base(f.Path)
		n.parent = all[path.Dir(f.Path)]
		if n.parent == nil || n.parent.inside == nil || len(name) > maxName {
			return nil, fmt.Errorf("%s: no directory for it", f.Path)
		}
		n.parent.inside[name] = n
		if n.inside != nil {
			n.parent.links++
		}
	}
	for _, n := range out {
		if n.inside == nil {
			continue
		}
		n.names = []string{".", ".."}
		for name := range n.inside {
			n.names = append(n.names, name)
		}
		slices.Sort(n.names)
		n.size = directorySize(n.names)
	}
	return out, nil
}

// packAll compresses all files, on all processors. Each file's result is its own, so that their number does not matter.
func packAll(ctx context.Context, inodes []*inode) error {
	finders := sync.Pool{New: func() any { return new(finder) }}
	order := slices.Clone(inodes)
	slices.SortStableFunc(order, func(a, b *inode) int { return b.size - a.size }) // the largest first, so that no processor waits for it
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, n := range order {
		if n.kind != entryRegular || n.size <= blockSize {
			continue
		}
		group.Go(func() error {
			f := finders.Get().(*finder)
			defer finders.Put(f)
			n.packed = pack(f, n.file.Data)
			return ctx.Err()
		})
	}
	return group.Wait()
}

// lay gives each inode its place behind the superblock's block, and returns where the metadata end.
func lay(inodes []*inode) int {
	at := blockSize
	for _, n := range inodes {
		at = (at + inodeSlot - 1) / inodeSlot * inodeSlot
		switch {
		case n.packed.indexes != nil:
			n.layout, n.blocks = layoutCompressed, len(n.packed.blocks)/blockSize
			n.at = at
			at += inodeSize + indexOverhead + len(n.packed.indexes)
			continue
		case n.size%blockSize > 0 && n.size%blockSize <= blockSize-inodeSize:
			n.layout, n.tail = layoutInline, n.size%blockSize
			n.blocks = n.size / blockSize
			if at%blockSize+inodeSize+n.tail > blockSize { // inode and tail lie in one block
				at = (at + blockSize - 1) / blockSize * blockSize
			}
		default:
			n.layout, n.blocks = layoutPlain, blocks(n.size)
		}
		n.at = at
		at += inodeSize + n.tail
	}
	return at
}

func (n *inode) nid() uint64 { return uint64(n.at / inodeSlot) }

// write writes the inode and what lies behind it. first is where its data begin.
func (n *inode) write(meta []byte, number, first uint32) {
	n.content = n.file.Data
	if n.inside != nil {
		var entries []entry
		for _, name := range n.names {
			to := n.inside[name]
			switch name {
			case ".":
				to = n
			case "..":
				to = n.parent
			}
			entries = append(entries, entry{name, to.nid(), to.kind})
		}
		n.content = writeDirectory(entries)
	}
	out := meta[n.at:]
	put16, put32 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32
	put16(out[0:], uint16(n.layout<<1))
	put16(out[4:], n.mode)
	put16(out[6:], uint16(n.links))
	put32(out[8:], uint32(n.size))
	put32(out[20:], number)
	switch n.layout {
	case layoutCompressed:
		put32(out[16:], uint32(n.blocks))
		n.packed.place(first)
		copy(out[inodeSize+indexOverhead:], n.packed.indexes)
	default:
		if n.blocks > 0 {
			put32(out[16:], first)
		}
		copy(out[inodeSize:], n.content[n.size-n.tail:])
	}
}

func writeSuperblock(image []byte, inodes []*inode, epoch int64, total uint32) {
	sb := image[superblockOffset:][:superblockSize]
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	put32(sb[0:], magic)
	put32(sb[8:], checksumFlag)
	sb[12] = blockBits
	binary.LittleEndian.PutUint16(sb[14:], uint16(inodes[0].nid()))
	put64(sb[16:], uint64(len(inodes)))
	put64(sb[24:], uint64(epoch))
	put32(sb[36:], total)
	put32(sb[80:], zeroPaddingFlag)
	put32(sb[4:], checksum(image))
}

// checksum is over the first block from the superblock on, its own field being zero.
func checksum(image []byte) uint32 {
	block := slices.Clone(image[superblockOffset:blockSize])
	binary.LittleEndian.PutUint32(block[4:], 0)
	return ^crc32.Checksum(block, crc32.MakeTable(crc32.Castagnoli))
}
