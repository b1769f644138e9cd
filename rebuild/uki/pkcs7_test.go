package uki

import (
	"bytes"
	"encoding/asn1"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// TestAttributes: a signature counts with exactly one attribute for the kind of its content and one for its hash, and the key's owner made all of these.
func TestAttributes(t *testing.T) {
	fleet := own(t, "fleet")
	content := indirectData([32]byte{1})
	digest, err := contentDigest(content)
	if err != nil {
		t.Fatal(err)
	}
	kind := func(oid asn1.ObjectIdentifier) []byte {
		return attribute(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
	}
	hash := func(h [32]byte) []byte {
		return attribute(oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(h[:]) })
	}
	for _, tt := range []struct {
		name       string
		attributes [][]byte
		good       bool
	}{
		{"both", [][]byte{kind(oidIndirectData), hash(digest)}, true},
		{"none", nil, false},
		{"an empty set", [][]byte{}, false},
		{"no kind", [][]byte{hash(digest)}, false},
		{"no hash", [][]byte{kind(oidIndirectData)}, false},
		{"another kind than the content's", [][]byte{kind(oidSignedData), hash(digest)}, false},
		{"the kind twice", [][]byte{kind(oidIndirectData), kind(oidIndirectData), hash(digest)}, false},
		{"two hashes", [][]byte{kind(oidIndirectData), hash([32]byte{2}), hash(digest)}, false},
	} {
		var attributes []byte // nil: there are none, which is another thing than an empty set
		if tt.attributes != nil {
			attributes = bytes.Join(tt.attributes, nil)
		}
		signed, err := signedBytes(fleet.key, fleet.certificate, oidIndirectData, content, attributes, digest)
		if err != nil {
			t.Fatal(err)
		}
		var b cryptobyte.Builder
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidSignedData)
			b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(signed) })
		})
		m, _, err := readSignature(b.BytesOrPanic())
		if (err == nil) != tt.good {
			t.Errorf("%s: got %v", tt.name, err)
		}
		if tt.good && (m == nil || !m.by(fleet.certificate, digest)) {
			t.Errorf("%s: not by its key", tt.name)
		}
	}
}
