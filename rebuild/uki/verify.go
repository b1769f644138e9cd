package uki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Reasons why an image would not boot under Secure Boot.
const (
	Malformed   = "image_malformed"    // no strict PE file, or a signature that is none
	NotSigned   = "image_unsigned"     // no signature at all
	Altered     = "image_altered"      // the signature is of another image
	UnknownCert = "image_unknown_cert" // by nobody whose certificate was given
)

// maxSignatures bounds how many signatures of an image are looked at.
const maxSignatures = 4

// Refusal is why an image is refused.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Verify checks that one of an image's signatures is by one of the certificates, and returns that certificate. Signatures by
// others count for nothing and harm nothing. Dates are not looked at, and neither does firmware: Secure Boot has no clock to trust.
func Verify(data []byte, certificates []*x509.Certificate) (*x509.Certificate, error) {
	p, err := parse(data)
	if err != nil {
		return nil, refuse(Malformed, "%w", err)
	}
	if len(p.certificates) == 0 {
		return nil, refuse(NotSigned, "the image has no signature")
	}
	entries, err := p.entries()
	if err != nil {
		return nil, refuse(Malformed, "%w", err)
	}
	hash := p.authenticode()
	altered := false
	var last error
	for _, entry := range entries {
		m, of, err := readSignature(entry)
		if err != nil {
			last = err
			continue
		}
		digest, err := contentDigest(m.content)
		if err != nil {
			last = err
			continue
		}
		for _, c := range certificates {
			if !m.by(c, digest) {
				continue
			}
			if of == hash {
				return c, nil
			}
			altered = true
		}
	}
	switch {
	case altered:
		return nil, refuse(Altered, "the image's SHA-256 is %x, and that is not what was signed", hash)
	case last != nil:
		return nil, refuse(Malformed, "%w", last)
	}
	return nil, refuse(UnknownCert, "the image is signed by none of the %d certificates", len(certificates))
}

// entries are the PKCS #7 messages of the certificate table.
func (p *image) entries() ([][]byte, error) {
	var all [][]byte
	for rest := p.certificates; len(rest) > 0; {
		if len(rest) < certificateHeader || len(all) == maxSignatures {
			return nil, malformed("certificate table")
		}
		size := uint64(binary.LittleEndian.Uint32(rest))
		padded := alignUp(size, certificateAlign)
		if size < certificateHeader || padded > uint64(len(rest)) ||
			binary.LittleEndian.Uint16(rest[4:]) != certificateRevision || binary.LittleEndian.Uint16(rest[6:]) != certificatePKCS7 {
			return nil, malformed("certificate table")
		}
		all = append(all, rest[certificateHeader:size])
		rest = rest[padded:]
	}
	return all, nil
}

// readSignature reads one Authenticode signature, and the hash of the image that it is of.
func readSignature(data []byte) (*message, [sha256.Size]byte, error) {
	none := [sha256.Size]byte{}
	m, err := readMessage(data)
	if err != nil {
		return nil, none, err
	}
	if !m.kind.Equal(oidIndirectData) || m.attributes == nil {
		return nil, none, errMessage
	}
	content := m.content
	var indirect, what, digest, hash cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !content.ReadASN1(&indirect, der.SEQUENCE) || !content.Empty() ||
		!indirect.ReadASN1(&what, der.SEQUENCE) || !what.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidPEImageData) ||
		!indirect.ReadASN1(&digest, der.SEQUENCE) || !indirect.Empty() ||
		!readAlgorithm(&digest, oidSHA256) || !digest.ReadASN1(&hash, der.OCTET_STRING) || !digest.Empty() {
		return nil, none, errMessage
	}
	if len(hash) != sha256.Size {
		return nil, none, errors.New("the signature's hash is no SHA-256")
	}
	return m, [sha256.Size]byte(hash), nil
}
