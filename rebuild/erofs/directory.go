package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// entry is a name in a directory.
type entry struct {
	name string
	nid  uint64
	kind byte
}

// directorySize is the size of a directory with these names, which are sorted, "." and ".." among them.
func directorySize(names []string) int {
	full, used := 0, 0
	for _, n := range names {
		need := dirEntrySize + len(n)
		if used+need > blockSize {
			full, used = full+1, 0
		}
		used += need
	}
	return full*blockSize + used
}

// writeDirectory makes a directory's content.
func writeDirectory(entries []entry) []byte {
	var out []byte
	for len(entries) > 0 {
		used, n := 0, 0
		for n < len(entries) && used+dirEntrySize+len(entries[n].name) <= blockSize {
			used += dirEntrySize + len(entries[n].name)
			n++
		}
		if len(out)%blockSize > 0 {
			out = append(out, make([]byte, blockSize-len(out)%blockSize)...)
		}
		nameAt := n * dirEntrySize
		for _, e := range entries[:n] {
			out = binary.LittleEndian.AppendUint64(out, e.nid)
			out = binary.LittleEndian.AppendUint16(out, uint16(nameAt))
			out = append(out, e.kind, 0)
			nameAt += len(e.name)
		}
		for _, e := range entries[:n] {
			out = append(out, e.name...)
		}
		entries = entries[n:]
	}
	return out
}

// readDirectory reads what writeDirectory wrote.
func readDirectory(data []byte) ([]entry, error) {
	var out []entry
	last := ""
	for len(data) > 0 {
		block := data[:min(blockSize, len(data))]
		data = data[len(block):]
		if len(block) < dirEntrySize {
			return nil, errors.New("a directory's block without an entry")
		}
		size := int(binary.LittleEndian.Uint16(block[8:]))
		count := size / dirEntrySize
		if size%dirEntrySize != 0 || count == 0 || size > len(block) {
			return nil, errors.New("a directory's block with no count of entries")
		}
		for i := range count {
			e := block[i*dirEntrySize:]
			from, to := int(binary.LittleEndian.Uint16(e[8:])), len(block)
			if i+1 < count {
				to = int(binary.LittleEndian.Uint16(e[dirEntrySize+8:]))
			}
			if from < size || to < from || to > len(block) {
				return nil, errors.New("a directory's entry with a name outside of its block")
			}
			name := string(block[from:to])
			if i+1 == count { // zeros fill the block
				name = strings.TrimRight(name, "\x00")
			}
			if name == "" || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
				return nil, fmt.Errorf("a directory's entry with the name %q", name)
			}
			if name <= last {
				return nil, fmt.Errorf("a directory's entry %q: out of order, or there twice", name)
			}
			last = name
			out = append(out, entry{name: name, nid: binary.LittleEndian.Uint64(e), kind: e[10]})
		}
	}
	return out, nil
}
