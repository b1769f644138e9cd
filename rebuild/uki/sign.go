package uki

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of Authenticode.
var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

// Sign returns the image with a Secure Boot signature. The same image, key and certificate give the same bytes. An image that is
// signed already is refused: firmware would have to be told which of several counts.
func Sign(data []byte, key crypto.Signer, certificate *x509.Certificate) ([]byte, error) {
	out, err := sign(data, key, certificate)
	if err != nil {
		return nil, fmt.Errorf("signing for Secure Boot: %w", err)
	}
	return out, nil
}

func sign(data []byte, key crypto.Signer, certificate *x509.Certificate) ([]byte, error) {
	p, err := parse(data)
	if err != nil {
		return nil, err
	}
	if len(p.certificates) > 0 {
		return nil, errors.New("the image is signed already")
	}
	if p.body%certificateAlign != 0 {
		return nil, malformed("a size that is no multiple of %d", certificateAlign)
	}
	content := indirectData(p.authenticode())
	signed, err := contentSigned(key, certificate, content)
	if err != nil {
		return nil, err
	}
	entry := make([]byte, certificateHeader, certificateHeader+len(signed)+certificateAlign)
	binary.LittleEndian.PutUint32(entry, uint32(certificateHeader+len(signed)))
	binary.LittleEndian.PutUint16(entry[4:], certificateRevision)
	binary.LittleEndian.PutUint16(entry[6:], certificatePKCS7)
	entry = append(entry, signed...)
	entry = append(entry, make([]byte, alignUp(uint64(len(entry)), certificateAlign)-uint64(len(entry)))...)
	out := append(bytes.Clone(p.data), entry...)
	binary.LittleEndian.PutUint32(out[p.security():], uint32(p.body))
	binary.LittleEndian.PutUint32(out[p.security()+4:], uint32(len(entry)))
	return out, nil
}

// contentSigned is ContentInfo with SignedData over indirect data. What is signed there is the value without its header.
func contentSigned(key crypto.Signer, certificate *x509.Certificate, content []byte) ([]byte, error) {
	digest, err := contentDigest(content)
	if err != nil {
		return nil, err
	}
	attributes := [][]byte{
		attribute(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidIndirectData) }),
		attribute(oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) }),
	}
	slices.SortFunc(attributes, bytes.Compare)
	signed, err := signedBytes(key, certificate, oidIndirectData, content, bytes.Join(attributes, nil), digest)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(signed) })
	})
	return b.Bytes()
}

func contentDigest(content cryptobyte.String) ([sha256.Size]byte, error) {
	var inner cryptobyte.String
	if !content.ReadASN1(&inner, der.SEQUENCE) || !content.Empty() {
		return [sha256.Size]byte{}, errMessage
	}
	return sha256.Sum256(inner), nil
}

// indirectData is SpcIndirectDataContent: that the content is an EFI image with this hash. Its flags are empty and its file name is the
// empty string, as every tool writes them.
func indirectData(hash [sha256.Size]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPEImageData)
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(der.BIT_STRING, func(b *cryptobyte.Builder) { b.AddUint8(0) })
				b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
					b.AddASN1(der.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
						b.AddASN1(der.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
					})
				})
			})
		})
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			addAlgorithm(b, oidSHA256)
			b.AddASN1OctetString(hash[:])
		})
	})
	return b.BytesOrPanic()
}
