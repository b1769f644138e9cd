package hardkey

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// strict reads CBOR as CTAP2 writes it: no duplicate keys, no tags, no indefinite lengths, no unknown fields, few and shallow.
var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       16,
	}.DecMode()
	if err != nil {
		panic("hardkey: internal error: " + err.Error())
	}
	return mode
}()

// canonical writes CBOR as CTAP2 does (FIDO CTAP 2.1, section 8).
var canonical = func() cbor.EncMode {
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		panic("hardkey: internal error: " + err.Error())
	}
	return mode
}()

// first reads one item of data into v, a pointer, and returns the rest. It accepts one form of each value: its own.
func first(data []byte, v any) ([]byte, error) {
	rest, err := strict.UnmarshalFirst(data, v)
	if err != nil {
		return nil, err
	}
	again, err := canonical.Marshal(v)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data[:len(data)-len(rest)]) {
		return nil, fmt.Errorf("not in CTAP2's canonical form")
	}
	return rest, nil
}
