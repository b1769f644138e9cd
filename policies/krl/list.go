package krl

import (
	"crypto/sha1" // what lists hold, besides SHA-256; nothing is trusted because of it
	"crypto/sha256"
	"time"
)

// List is what is revoked. The zero value revokes nothing.
type List struct {
	Version uint64 // as its maker counts
	Comment string

	generated   uint64
	authorities map[string]*authority // by key blob; "" is every authority
	keys        map[string]struct{}   // blobs of plain keys
	sha1        map[[sha1Size]byte]struct{}
	sha256      map[[sha256Size]byte]struct{}
}

// authority is what is revoked of one authority's certificates.
type authority struct {
	serials map[uint64]struct{}
	spans   []span
	bitmaps []bitmap
	keyIDs  map[string]struct{}
}

type span struct{ first, last uint64 } // both included

// bitmap has serial offset+n where bit n of the big-endian number is set.
type bitmap struct {
	offset uint64
	bits   string
}

// Generated is when the list was made, as it says itself.
func (l *List) Generated() time.Time { return time.Unix(int64(l.generated), 0).UTC() }

// Key says how a plain key, in SSH's wire form, is revoked: "key", "sha1" or "sha256"; "" if it is not.
func (l *List) Key(blob []byte) string {
	if _, ok := l.keys[string(blob)]; ok {
		return "key"
	}
	if _, ok := l.sha256[sha256.Sum256(blob)]; ok {
		return "sha256"
	}
	if _, ok := l.sha1[sha1.Sum(blob)]; ok {
		return "sha1"
	}
	return ""
}

// Certificate says how a certificate is revoked: because its key is or its authority's ("key", …, "authority"), or by "serial" or
// "key_id"; "" if it is not. Key and authority are plain keys in SSH's wire form.
func (l *List) Certificate(key, ca []byte, serial uint64, keyID string) string {
	if how := l.Key(key); how != "" {
		return how
	}
	if l.Key(ca) != "" {
		return "authority"
	}
	for _, name := range []string{string(ca), ""} {
		a := l.authorities[name]
		switch {
		case a == nil:
		case a.hasKeyID(keyID):
			return "key_id"
		case a.hasSerial(serial):
			return "serial"
		}
	}
	return ""
}

func (a *authority) hasKeyID(id string) bool {
	_, ok := a.keyIDs[id]
	return ok
}

// hasSerial is false for 0: a certificate without a serial number has it.
func (a *authority) hasSerial(serial uint64) bool {
	if serial == 0 {
		return false
	}
	if _, ok := a.serials[serial]; ok {
		return true
	}
	for _, s := range a.spans {
		if s.first <= serial && serial <= s.last {
			return true
		}
	}
	for _, b := range a.bitmaps {
		if b.has(serial) {
			return true
		}
	}
	return false
}

func (b bitmap) has(serial uint64) bool {
	if serial < b.offset {
		return false
	}
	n := serial - b.offset
	if n/8 >= uint64(len(b.bits)) {
		return false
	}
	return b.bits[uint64(len(b.bits))-1-n/8]>>(n%8)&1 != 0
}
