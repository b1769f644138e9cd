package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the right edge of a log: what of each level is not in a full tile yet. It grows by one entry at a time.
type tree struct {
	size   uint64
	levels []level
	bundle []byte // the last entry bundle, while it is not full
}

type level struct {
	hashes []tlog.Hash // of the last tile, while it is not full
	tile   uint64      // its number
	grown  bool        // since the last call of edge
}

// tile is one file of the log: a tile of hashes, or, with entries set, an entry bundle. Width tileWidth is a full one.
type tile struct {
	entries bool
	level   int
	index   uint64
	width   int
	data    []byte
}

// add appends an entry and hands every tile that became full to full.
func (t *tree) add(entry []byte, full func(tile)) {
	t.bundle = binary.BigEndian.AppendUint16(t.bundle, uint16(len(entry)))
	t.bundle = append(t.bundle, entry...)
	t.size++
	if t.size%tileWidth == 0 {
		full(tile{entries: true, index: t.size/tileWidth - 1, width: tileWidth, data: t.bundle})
		t.bundle = nil
	}
	t.addHash(0, tlog.RecordHash(entry), full)
}

func (t *tree) addHash(l int, h tlog.Hash, full func(tile)) {
	if l == len(t.levels) {
		t.levels = append(t.levels, level{})
	}
	at := &t.levels[l]
	at.hashes = append(at.hashes, h)
	at.grown = true
	if len(at.hashes) < tileWidth {
		return
	}
	full(tile{level: l, index: at.tile, width: tileWidth, data: marshal(at.hashes)})
	above := subtree(at.hashes)
	at.hashes, at.grown = at.hashes[:0], false
	at.tile++
	t.addHash(l+1, above, full)
}

// edge returns the partial tiles that have grown since the last call.
func (t *tree) edge() []tile {
	var tiles []tile
	if len(t.levels) > 0 && t.levels[0].grown {
		tiles = append(tiles, tile{entries: true, index: t.levels[0].tile, width: len(t.levels[0].hashes), data: append([]byte(nil), t.bundle...)})
	}
	for l := range t.levels {
		if at := &t.levels[l]; at.grown {
			tiles = append(tiles, tile{level: l, index: at.tile, width: len(at.hashes), data: marshal(at.hashes)})
			at.grown = false
		}
	}
	return tiles
}

// root is the hash of all entries (RFC 6962, section 2.1): the full subtrees along the right edge, from the smallest up.
func (t *tree) root() tlog.Hash {
	var acc *tlog.Hash
	for _, at := range t.levels {
		hashes := at.hashes
		for len(hashes) > 0 {
			n := 1 << bits.TrailingZeros(uint(len(hashes)))
			h := subtree(hashes[len(hashes)-n:])
			if acc != nil {
				h = tlog.NodeHash(h, *acc)
			}
			acc, hashes = &h, hashes[:len(hashes)-n]
		}
	}
	if acc == nil {
		return sha256.Sum256(nil)
	}
	return *acc
}

// subtree is the root of a power of two of hashes.
func subtree(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(subtree(hashes[:half]), subtree(hashes[half:]))
}

func marshal(hashes []tlog.Hash) []byte {
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data
}
