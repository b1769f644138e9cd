package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"
)

// Image is what Read found.
type Image struct {
	Epoch time.Time
	Files []File // in the order of a walk, directories before what they hold
}

// Read reads an image that Write wrote. What an image can hold beside that (extended attributes, other compression, devices, owners) is
// refused: a root of ours has none. Files' data may lie in the image, which must not change.
func Read(image []byte) (*Image, error) {
	r := &reader{image: image, seen: map[uint64]bool{}}
	out, err := r.read()
	if err != nil {
		return nil, fmt.Errorf("reading an EROFS image: %w", err)
	}
	return out, nil
}

type reader struct {
	image []byte
	seen  map[uint64]bool
	files []File
	total int // bytes of content
}

func (r *reader) read() (*Image, error) {
	if len(r.image) < blockSize || len(r.image) > MaxImage || len(r.image)%blockSize != 0 {
		return nil, fmt.Errorf("%d bytes", len(r.image))
	}
	sb := r.image[superblockOffset:][:superblockSize]
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(sb[at:]) }
	switch {
	case u32(0) != magic:
		return nil, errors.New("no superblock")
	case u32(8) != checksumFlag || u32(80) != zeroPaddingFlag:
		return nil, fmt.Errorf("features %#x and %#x, want %#x and %#x", u32(8), u32(80), checksumFlag, zeroPaddingFlag)
	case u32(4) != checksum(r.image):
		return nil, errors.New("the superblock's checksum is wrong")
	case sb[12] != blockBits || sb[13] != 0 || u32(32) != 0 || u32(40) != 0 || u32(44) != 0 || len(bytes.Trim(sb[48:80], "\x00")) > 0 || len(bytes.Trim(sb[84:], "\x00")) > 0:
		return nil, errors.New("a superblock that is not ours")
	case int64(u32(36))*blockSize != int64(len(r.image)):
		return nil, fmt.Errorf("%d bytes, and %d blocks are said", len(r.image), u32(36))
	}
	root := uint64(binary.LittleEndian.Uint16(sb[14:]))
	if err := r.walk(".", root, root, entryDir, 0); err != nil {
		return nil, err
	}
	if n := binary.LittleEndian.Uint64(sb[16:]); n != uint64(len(r.files)) {
		return nil, fmt.Errorf("%d files, and %d are said", len(r.files), n)
	}
	epoch := binary.LittleEndian.Uint64(sb[24:])
	if epoch > 1<<40 {
		return nil, errors.New("a time that is far away")
	}
	return &Image{Epoch: time.Unix(int64(epoch), 0).UTC(), Files: r.files}, nil
}

// walk reads a file, and what is in it.
func (r *reader) walk(name string, nid, parent uint64, kind byte, level int) error {
	if len(r.files) >= maxFiles || level > maxDepth {
		return fmt.Errorf("more than %d files, or deeper than %d", maxFiles, maxDepth)
	}
	if r.seen[nid] {
		return fmt.Errorf("%s: a file that is there twice", name)
	}
	r.seen[nid] = true
	mode, data, err := r.inode(nid)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	m, is, ok := fileMode(mode)
	if !ok || is != kind {
		return fmt.Errorf("%s: mode %#o, and its directory says type %d", name, mode, kind)
	}
	if m.Type() == fs.ModeSymlink && (len(data) == 0 || len(data) > maxLink || bytes.IndexByte(data, 0) >= 0) {
		return fmt.Errorf("%s: a link of %d bytes", name, len(data))
	}
	f := File{Path: name, Mode: m}
	if !m.IsDir() {
		f.Data = data
		r.files = append(r.files, f)
		return nil
	}
	r.files = append(r.files, f)
	entries, err := readDirectory(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	dots := 0
	for _, e := range entries {
		switch {
		case e.name == "." && e.nid == nid, e.name == ".." && e.nid == parent:
			dots++
		case e.name == "." || e.name == "..":
			return fmt.Errorf("%s: %q leads elsewhere", name, e.name)
		default:
			if err := r.walk(path.Join(name, e.name), e.nid, nid, e.kind, level+1); err != nil {
				return err
			}
		}
	}
	if dots != 2 {
		return fmt.Errorf("%s: a directory without \".\" and \"..\"", name)
	}
	return nil
}

// slice is a part of the image.
func (r *reader) slice(at, n int) ([]byte, error) {
	if at < 0 || n < 0 || at > len(r.image) || n > len(r.image)-at {
		return nil, errors.New("leads out of the image")
	}
	return r.image[at : at+n : at+n], nil
}

// inode reads an inode and its content.
func (r *reader) inode(nid uint64) (mode uint16, data []byte, err error) {
	if nid > MaxImage/inodeSlot {
		return 0, nil, errors.New("leads out of the image")
	}
	at := int(nid) * inodeSlot
	in, err := r.slice(at, inodeSize)
	if err != nil {
		return 0, nil, err
	}
	u16, u32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	mode = u16(in[4:])
	size, first, layout := int(u32(in[8:])), int(u32(in[16:])), int(u16(in))>>1
	if u16(in)&1 != 0 || u16(in[2:]) != 0 || u32(in[12:]) != 0 || u32(in[24:]) != 0 || u32(in[28:]) != 0 {
		return 0, nil, errors.New("an inode that is not ours: extended, with attributes, or with an owner")
	}
	if r.total += size; r.total > maxContent {
		return 0, nil, fmt.Errorf("more than %d bytes in all", maxContent)
	}
	switch layout {
	case layoutPlain:
		data, err = r.slice(first*blockSize, size)
	case layoutInline:
		data, err = r.inline(at, first, size)
	case layoutCompressed:
		if mode&^0o7777 != typeRegular {
			return 0, nil, errors.New("compressed, and no file")
		}
		data, err = r.compressed(at, size)
	default:
		err = fmt.Errorf("layout %d", layout)
	}
	return mode, data, err
}

// inline reads content of which the last part lies behind the inode.
func (r *reader) inline(at, first, size int) ([]byte, error) {
	full, rest := size/blockSize*blockSize, size%blockSize
	if at%blockSize+inodeSize+rest > blockSize {
		return nil, errors.New("a tail that leaves its block")
	}
	tail, err := r.slice(at+inodeSize, rest)
	if err != nil || full == 0 {
		return tail, err
	}
	head, err := r.slice(first*blockSize, full)
	if err != nil {
		return nil, err
	}
	return append(bytes.Clone(head), tail...), nil
}

// extent is a part of a file that lies in one block of the image.
type extent struct {
	from, block int
	plain       bool
}

// compressed reads content that pack made.
func (r *reader) compressed(at, size int) ([]byte, error) {
	if size <= blockSize {
		return nil, errors.New("compressed, and no larger than a block")
	}
	indexes, err := r.slice(at+inodeSize, indexOverhead+blocks(size)*indexSize)
	if err != nil {
		return nil, err
	}
	if len(bytes.Trim(indexes[:indexOverhead], "\x00")) > 0 {
		return nil, errors.New("another kind of compression")
	}
	extents, err := readIndexes(indexes[indexOverhead:], size)
	if err != nil {
		return nil, err
	}
	out := make([]byte, size)
	for i, e := range extents {
		to := size
		if i+1 < len(extents) {
			to = extents[i+1].from
		}
		block, err := r.slice(e.block*blockSize, blockSize)
		if err != nil {
			return nil, err
		}
		part := out[e.from:to]
		switch {
		case e.plain && len(part) > blockSize:
			return nil, errors.New("a plain block that holds more than a block")
		case e.plain:
			copy(part, block)
		default:
			if err := decompress(part, bytes.TrimLeft(block, "\x00")); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// readIndexes reads a file's indexes.
func readIndexes(in []byte, size int) ([]extent, error) {
	var out []extent
	last := blocks(size) - 1
	head := 0 // index of the last extent's beginning
	for i := range last + 1 {
		kind, offset := binary.LittleEndian.Uint16(in[i*indexSize:]), int(binary.LittleEndian.Uint16(in[i*indexSize+2:]))
		value := binary.LittleEndian.Uint32(in[i*indexSize+4:])
		switch kind {
		case indexPlain, indexHead:
			from := i*blockSize + offset
			if offset >= blockSize || i == 0 && offset != 0 || from > size {
				return nil, fmt.Errorf("index %d begins at %d", i, offset)
			}
			if from == size { // the end's mark
				return out, nil
			}
			out = append(out, extent{from: from, block: int(value), plain: kind == indexPlain})
			head = i
		case indexNonhead:
			if i == 0 || int(value&0xffff) != i-head || offset != 0 {
				return nil, fmt.Errorf("index %d follows no extent", i)
			}
		default:
			return nil, fmt.Errorf("index %d has type %d", i, kind)
		}
	}
	return out, nil
}
