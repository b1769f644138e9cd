package erofs

import (
	"encoding/binary"
)

// packed is a file's content as it lies on disk.
type packed struct {
	blocks  []byte // whole blocks
	indexes []byte // one for each block of the content; block numbers count from the first of blocks. Without, the content is not compressed.
}

// pack compresses a file's content. What does not get smaller by a block stays as it is.
func pack(f *finder, data []byte) packed {
	if blocks(len(data)) < 2 {
		return packed{}
	}
	f.reset(data)
	p := packed{indexes: make([]byte, 0, blocks(len(data))*indexSize)}
	scratch := make([]byte, 0, blockSize)
	offset := 0 // in the block of the content in which the next extent begins
	for at := 0; at < len(data); {
		count, kind := min(blockSize, len(data)-at), indexPlain
		if len(data)-at > blockSize {
			out, consumed := f.compress(scratch, blockSize, at)
			// Two extents cannot begin in one block of the content, so each is longer than a block.
			if consumed > blockSize {
				count, kind = consumed, indexHead
				scratch = out
			}
		}
		number := len(p.blocks) / blockSize
		p.blocks = append(p.blocks, make([]byte, blockSize)...)
		block := p.blocks[number*blockSize:]
		if kind == indexPlain {
			copy(block, data[at:at+count])
		} else {
			copy(block[blockSize-len(scratch):], scratch)
		}
		p.index(kind, offset, count, number)
		at += count
		if offset+count < blockSize { // the end of the file, in the block in which its extent begins
			offset = 0
			break
		}
		offset = (offset + count) % blockSize
	}
	if offset > 0 { // the content ends in the middle of a block: what comes before belongs to the last extent
		p.appendIndex(indexPlain, uint16(offset), 0)
	}
	if len(p.blocks)/blockSize >= blocks(len(data)) {
		return packed{}
	}
	return p
}

// index writes the indexes of an extent: one for the block in which it begins, and one for each that it fills.
func (p *packed) index(kind, offset, count, number int) {
	p.appendIndex(kind, uint16(offset), uint32(number))
	for d, last := 1, (offset+count)/blockSize; d < last; d++ {
		p.appendIndex(indexNonhead, 0, uint32(d)|uint32(last-d)<<16)
	}
}

func (p *packed) appendIndex(kind int, offset uint16, value uint32) {
	p.indexes = binary.LittleEndian.AppendUint16(p.indexes, uint16(kind))
	p.indexes = binary.LittleEndian.AppendUint16(p.indexes, offset)
	p.indexes = binary.LittleEndian.AppendUint32(p.indexes, value)
}

// place makes block numbers count from the beginning of the image.
func (p *packed) place(first uint32) {
	for i := 0; i < len(p.indexes); i += indexSize {
		if binary.LittleEndian.Uint16(p.indexes[i:]) == indexHead || binary.LittleEndian.Uint16(p.indexes[i:]) == indexPlain {
			value := p.indexes[i+4:]
			binary.LittleEndian.PutUint32(value, binary.LittleEndian.Uint32(value)+first)
		}
	}
}
