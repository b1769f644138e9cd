package uki

import (
	"crypto/sha256"
	"encoding/binary"
)

// Authenticode returns the SHA-256 of an image as firmware computes it, for Secure Boot and for PCR 4: over all of the file but
// its checksum, the entry that says where the certificates are, and the certificates. Signing does not change it.
func Authenticode(data []byte) ([sha256.Size]byte, error) {
	p, err := parse(data)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return p.authenticode(), nil
}

func (p *image) authenticode() [sha256.Size]byte {
	h := sha256.New()
	checksum := p.optional + offCheckSum
	h.Write(p.data[:checksum])
	h.Write(p.data[checksum+4 : p.security()])
	h.Write(p.data[p.security()+directorySize : p.body])
	return [sha256.Size]byte(h.Sum(nil))
}

// Unsigned returns the image without its certificates: what Build made, if it was Sign that added them.
func Unsigned(data []byte) ([]byte, error) {
	p, err := parse(data)
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), p.data[:p.body]...)
	binary.LittleEndian.PutUint64(out[p.security():], 0)
	return out, nil
}
