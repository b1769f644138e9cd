package krl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/crypto/ssh"
)

// Specification constants (PROTOCOL.krl).
const (
	magic         = 0x5353484b524c0a00 // "SSHKRL\n\0"
	formatVersion = 1

	sectionCertificates = 1
	sectionKeys         = 2
	sectionSHA1         = 3
	sectionSignature    = 4
	sectionSHA256       = 5
	sectionExtension    = 255

	serialList    = 0x20
	serialRange   = 0x21
	serialBitmap  = 0x22
	keyIDs        = 0x23
	certExtension = 0x39

	sha1Size   = 20
	sha256Size = 32
)

// Implementation constants.
const (
	MaxSize     = 256 << 10 // of a list, in bytes
	maxKey      = 16 << 10  // of one key, in bytes
	maxText     = 1024      // of a comment or a key ID
	maxBitmap   = 2048 + 1  // in bytes, with a leading zero: what OpenSSH reads
	maxSections = 4096
)

var errShort = errors.New("it ends in the middle of a field")

// Parse reads a list. It keeps nothing of data.
func Parse(data []byte) (*List, error) {
	l, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading a key revocation list: %w", err)
	}
	return l, nil
}

func parse(data []byte) (*List, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("longer than %d bytes", MaxSize)
	}
	r := reader{rest: data}
	if r.uint64() != magic {
		return nil, errors.New("it is no list that ssh-keygen -k made")
	}
	if v := r.uint32(); r.err == nil && v != formatVersion {
		return nil, fmt.Errorf("format version %d is unknown", v)
	}
	l := &List{
		Version: r.uint64(), generated: r.uint64(), authorities: map[string]*authority{}, keys: map[string]struct{}{},
		sha1: map[[sha1Size]byte]struct{}{}, sha256: map[[sha256Size]byte]struct{}{},
	}
	flags, reserved, comment := r.uint64(), r.bytes(maxText), r.bytes(maxText)
	switch {
	case r.err != nil:
		return nil, r.err
	case flags != 0 || len(reserved) > 0:
		return nil, errors.New("it has flags or a reserved field, which mean something that is not known here")
	}
	l.Comment = string(comment)
	for n := 0; len(r.rest) > 0; n++ {
		if n == maxSections {
			return nil, fmt.Errorf("more than %d sections", maxSections)
		}
		kind, body := r.byte(), r.bytes(MaxSize)
		if r.err != nil {
			return nil, r.err
		}
		if err := l.section(kind, reader{rest: body}); err != nil {
			return nil, fmt.Errorf("section %d: %w", n+1, err)
		}
	}
	return l, nil
}

func (l *List) section(kind byte, r reader) error {
	switch kind {
	case sectionCertificates:
		return l.certificates(r)
	case sectionKeys:
		return r.each(maxKey, func(key []byte) error {
			if len(key) == 0 {
				return errors.New("an empty key")
			}
			l.keys[string(key)] = struct{}{}
			return nil
		})
	case sectionSHA1:
		return r.each(sha1Size, func(hash []byte) error {
			if len(hash) != sha1Size {
				return errors.New("a SHA-1 of another length")
			}
			l.sha1[[sha1Size]byte(hash)] = struct{}{}
			return nil
		})
	case sectionSHA256:
		return r.each(sha256Size, func(hash []byte) error {
			if len(hash) != sha256Size {
				return errors.New("a SHA-256 of another length")
			}
			l.sha256[[sha256Size]byte(hash)] = struct{}{}
			return nil
		})
	case sectionSignature:
		return errors.New("signed lists are not accepted: the bundle's signatures are what counts")
	case sectionExtension:
		return r.extension()
	}
	return fmt.Errorf("type %d is unknown", kind)
}

// certificates reads a section about the certificates of one authority, or of every one.
func (l *List) certificates(r reader) error {
	ca, reserved := r.bytes(maxKey), r.bytes(maxText)
	switch {
	case r.err != nil:
		return r.err
	case len(reserved) > 0:
		return errors.New("its reserved field is filled")
	}
	if len(ca) > 0 {
		key, err := ssh.ParsePublicKey(ca)
		if err != nil {
			return fmt.Errorf("its authority's key: %w", err)
		}
		if _, ok := key.(*ssh.Certificate); ok || string(key.Marshal()) != string(ca) {
			return errors.New("its authority is no plain key")
		}
	}
	a := l.authorities[string(ca)]
	if a == nil {
		a = &authority{serials: map[uint64]struct{}{}, keyIDs: map[string]struct{}{}}
		l.authorities[string(ca)] = a
	}
	for len(r.rest) > 0 {
		kind, body := r.byte(), r.bytes(MaxSize)
		if r.err != nil {
			return r.err
		}
		if err := a.subsection(kind, reader{rest: body}); err != nil {
			return err
		}
	}
	return nil
}

func (a *authority) subsection(kind byte, r reader) error {
	switch kind {
	case serialList:
		if len(r.rest) == 0 {
			return errors.New("an empty list of serial numbers")
		}
		for len(r.rest) > 0 {
			serial := r.uint64()
			if r.err != nil {
				return r.err
			}
			if serial == 0 {
				return errors.New("serial number 0, which a certificate without one has")
			}
			a.serials[serial] = struct{}{}
		}
		return nil
	case serialRange:
		s := span{r.uint64(), r.uint64()}
		switch {
		case r.end() != nil:
			return r.end()
		case s.first == 0 || s.first > s.last:
			return fmt.Errorf("serial numbers from %d to %d", s.first, s.last)
		}
		a.spans = append(a.spans, s)
		return nil
	case serialBitmap:
		offset, bits := r.uint64(), r.bytes(maxBitmap)
		switch {
		case r.end() != nil:
			return r.end()
		case len(bits) == 0:
			return errors.New("an empty bitmap of serial numbers")
		case bits[0]&0x80 != 0:
			return errors.New("a negative bitmap of serial numbers")
		case offset > math.MaxUint64-uint64(len(bits))*8:
			return errors.New("a bitmap past the largest serial number")
		case offset == 0 && bits[len(bits)-1]&1 != 0:
			return errors.New("serial number 0, which a certificate without one has")
		}
		a.bitmaps = append(a.bitmaps, bitmap{offset, string(bits)})
		return nil
	case keyIDs:
		return r.each(maxText, func(id []byte) error {
			a.keyIDs[string(id)] = struct{}{}
			return nil
		})
	case certExtension:
		return r.extension()
	}
	return fmt.Errorf("type %#x of certificates is unknown", kind)
}

// reader takes fields off the front. After the first error everything is empty.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.rest) < n {
		r.err, r.rest = errShort, nil
		return make([]byte, min(n, 8))
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// bytes takes a string of at most so many bytes.
func (r *reader) bytes(limit int) []byte {
	n := r.uint32()
	if r.err != nil {
		return nil
	}
	if uint64(n) > uint64(len(r.rest)) {
		r.err, r.rest = errShort, nil
		return nil
	}
	if uint64(n) > uint64(limit) {
		r.err, r.rest = fmt.Errorf("a field of %d bytes, at most %d", n, limit), nil
		return nil
	}
	return r.take(int(n))
}

// each calls f with every string until the end; there must be one.
func (r *reader) each(limit int, f func([]byte) error) error {
	if len(r.rest) == 0 {
		return errors.New("it is empty")
	}
	for len(r.rest) > 0 {
		field := r.bytes(limit)
		if r.err != nil {
			return r.err
		}
		if err := f(field); err != nil {
			return err
		}
	}
	return nil
}

// extension skips what may be skipped.
func (r *reader) extension() error {
	name, critical, _ := r.bytes(maxText), r.byte(), r.bytes(MaxSize)
	switch {
	case r.end() != nil:
		return r.end()
	case critical != 0:
		return fmt.Errorf("critical extension %q is unknown", name)
	}
	return nil
}

// end asks that nothing is left.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = errors.New("bytes after its end")
	}
	return r.err
}
