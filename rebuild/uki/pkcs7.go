package uki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of RFC 2315, and of Authenticode.
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidRSASHA256     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11} // what OpenSSL's newer interface writes in its place
)

// signedBytes makes SignedData by one key. content is left out if nil. Without attributes the signature is over digest itself,
// with them over these, and one of them has to hold digest.
func signedBytes(key crypto.Signer, certificate *x509.Certificate, kind asn1.ObjectIdentifier, content, attributes []byte, digest [sha256.Size]byte) ([]byte, error) {
	if err := checkKey(key, certificate); err != nil {
		return nil, err
	}
	if attributes != nil {
		digest = sha256.Sum256(set(attributes))
	}
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256) // PKCS #1 v1.5 takes nothing from the random source that shows
	if err != nil {
		return nil, fmt.Errorf("the Secure Boot key: %w", err)
	}
	if err := rsa.VerifyPKCS1v15(certificate.PublicKey.(*rsa.PublicKey), crypto.SHA256, digest[:], signature); err != nil {
		return nil, fmt.Errorf("the Secure Boot key made a bad signature: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(der.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSHA256) })
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(kind)
			if content != nil {
				b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(content) })
			}
		})
		b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(certificate.Raw) })
		b.AddASN1(der.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes(certificate.RawIssuer)
					b.AddASN1BigInt(certificate.SerialNumber)
				})
				addAlgorithm(b, oidSHA256)
				if attributes != nil {
					b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(attributes) })
				}
				addAlgorithm(b, oidRSA)
				b.AddASN1OctetString(signature)
			})
		})
	})
	return b.Bytes()
}

func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

// set is the DER of a SET with these contents.
func set(contents []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(der.SET, func(b *cryptobyte.Builder) { b.AddBytes(contents) })
	return b.BytesOrPanic() // of bytes alone
}

// attribute is one with a single value. Attributes have to be put together in the order of their bytes.
func attribute(oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(der.SET, value)
	})
	return b.BytesOrPanic()
}

// message is SignedData of one signer, read.
type message struct {
	kind       asn1.ObjectIdentifier
	content    cryptobyte.String // the value with its header; empty if it is detached
	issuer     []byte
	serial     *big.Int
	attributes []byte // contents of the set; nil if there is none
	contentIs  asn1.ObjectIdentifier
	digest     []byte // what the attribute says of the content
	signature  []byte
}

var errMessage = errors.New("the signature is not PKCS #7 of the form that firmware takes")

// readMessage reads ContentInfo with SignedData. Certificates in it are passed over: who may sign is known beforehand.
func readMessage(data []byte) (*message, error) {
	input := cryptobyte.String(data)
	var info, wrapped, signed, algorithms, inner, signers, signer, name, attributes cryptobyte.String
	var kind asn1.ObjectIdentifier
	var version int64
	if !input.ReadASN1(&info, der.SEQUENCE) || len(bytes.Trim(input, "\x00")) > 0 || // some tools count the padding in
		!info.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(oidSignedData) ||
		!info.ReadASN1(&wrapped, der.Tag(0).ContextSpecific().Constructed()) || !info.Empty() ||
		!wrapped.ReadASN1(&signed, der.SEQUENCE) || !wrapped.Empty() ||
		!signed.ReadASN1Integer(&version) || version != 1 ||
		!signed.ReadASN1(&algorithms, der.SET) || !readAlgorithm(&algorithms, oidSHA256) || !algorithms.Empty() ||
		!signed.ReadASN1(&inner, der.SEQUENCE) {
		return nil, errMessage
	}
	m := &message{serial: new(big.Int)}
	var present bool
	if !inner.ReadASN1ObjectIdentifier(&m.kind) ||
		!inner.ReadOptionalASN1(&m.content, &present, der.Tag(0).ContextSpecific().Constructed()) || !inner.Empty() ||
		!signed.SkipOptionalASN1(der.Tag(0).ContextSpecific().Constructed()) ||
		!signed.ReadASN1(&signers, der.SET) || !signed.Empty() ||
		!signers.ReadASN1(&signer, der.SEQUENCE) || !signers.Empty() {
		return nil, errMessage
	}
	var issuer cryptobyte.String
	if !signer.ReadASN1Integer(&version) || version != 1 ||
		!signer.ReadASN1(&name, der.SEQUENCE) || !name.ReadASN1Element(&issuer, der.SEQUENCE) || !name.ReadASN1Integer(m.serial) || !name.Empty() ||
		!readAlgorithm(&signer, oidSHA256) ||
		!signer.ReadOptionalASN1(&attributes, &present, der.Tag(0).ContextSpecific().Constructed()) ||
		!readAlgorithm(&signer, oidRSA, oidRSASHA256) ||
		!signer.ReadASN1Bytes(&m.signature, der.OCTET_STRING) ||
		!signer.SkipOptionalASN1(der.Tag(1).ContextSpecific().Constructed()) || !signer.Empty() { // a time stamp, which nobody looks at
		return nil, errMessage
	}
	m.issuer = issuer
	if !present {
		return m, nil
	}
	m.attributes = attributes
	return m, m.readAttributes()
}

// readAttributes wants each of the two that count exactly once.
func (m *message) readAttributes() error {
	for rest := cryptobyte.String(m.attributes); !rest.Empty(); {
		var one, values, digest cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !rest.ReadASN1(&one, der.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&oid) || !one.ReadASN1(&values, der.SET) || !one.Empty() {
			return errMessage
		}
		switch {
		case oid.Equal(oidContentType):
			if m.contentIs != nil || !values.ReadASN1ObjectIdentifier(&m.contentIs) || !values.Empty() {
				return errMessage
			}
		case oid.Equal(oidMessageDigest):
			if m.digest != nil || !values.ReadASN1(&digest, der.OCTET_STRING) || len(digest) != sha256.Size || !values.Empty() {
				return errMessage
			}
			m.digest = digest
		}
	}
	if m.contentIs == nil || m.digest == nil || !m.contentIs.Equal(m.kind) {
		return errMessage
	}
	return nil
}

func readAlgorithm(s *cryptobyte.String, want ...asn1.ObjectIdentifier) bool {
	var algorithm, null cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&algorithm, der.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) {
		return false
	}
	if !algorithm.Empty() && (!algorithm.ReadASN1(&null, der.NULL) || !null.Empty() || !algorithm.Empty()) {
		return false
	}
	for _, w := range want {
		if oid.Equal(w) {
			return true
		}
	}
	return false
}

// by says whether the message was signed with the certificate's key. digest is of its content.
func (m *message) by(certificate *x509.Certificate, digest [sha256.Size]byte) bool {
	key, ok := certificate.PublicKey.(*rsa.PublicKey)
	if !ok || !bytes.Equal(m.issuer, certificate.RawIssuer) || m.serial.Cmp(certificate.SerialNumber) != 0 {
		return false
	}
	if m.attributes != nil {
		if !bytes.Equal(m.digest, digest[:]) {
			return false
		}
		digest = sha256.Sum256(set(m.attributes))
	}
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], m.signature) == nil
}
