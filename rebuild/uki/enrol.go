package uki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf16"
)

// guid is a GUID as firmware stores it: the first three fields little-endian.
type guid [16]byte

// Specification constants: GUIDs of the UEFI specification, parts 3.3, 8.2 and 32.4.
var (
	guidX509   = guid{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
	guidPKCS7  = guid{0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7}
	guidGlobal = guid{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	guidImages = guid{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
)

const (
	certificateGUID = 0x0ef1 // WIN_CERT_TYPE_EFI_GUID
	// VariableAttributes of a key variable: kept, seen at boot and at run time, and written only with a dated signature.
	VariableAttributes = 0x01 | 0x02 | 0x04 | 0x20
)

// Variable is one of the three that Secure Boot's keys are in.
type Variable struct {
	Name   string
	vendor guid
}

// The key variables: PK owns the machine and says who may change KEK, KEK says who may change db, and db says what may boot.
var (
	PK  = Variable{"PK", guidGlobal}
	KEK = Variable{"KEK", guidGlobal}
	DB  = Variable{"db", guidImages}
)

// File is the variable's name in Linux's efivarfs.
func (v Variable) File() string {
	g := v.vendor
	return fmt.Sprintf("%s-%08x-%04x-%04x-%x-%x", v.Name, binary.LittleEndian.Uint32(g[0:]), binary.LittleEndian.Uint16(g[4:]), binary.LittleEndian.Uint16(g[6:]),
		g[8:10], g[10:])
}

// SignatureList is EFI_SIGNATURE_LIST with one certificate (.esl), which most firmware's setup menu takes as a file, as it takes the
// certificate itself. The owner is a name for people to know the entry by; it decides nothing.
func SignatureList(owner string, certificate *x509.Certificate) []byte {
	sum := sha256.Sum256([]byte("mayfly secure boot owner\n" + owner))
	id := guid(sum[:16])
	id[7], id[8] = id[7]&0x0f|0x80, id[8]&0x3f|0x80 // version 8: of the maker's own making
	entry := append(id[:], certificate.Raw...)
	const header = 28
	out := append([]byte(nil), guidX509[:]...)
	out = binary.LittleEndian.AppendUint32(out, uint32(header+len(entry)))
	out = binary.LittleEndian.AppendUint32(out, 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(entry)))
	return append(out, entry...)
}

// SignedUpdate is a new value of a key variable with the signature that lets firmware take it (.auth, EFI_VARIABLE_AUTHENTICATION_2).
// PK and KEK are signed with PK's key, db with KEK's. An empty list takes PK away, and the machine is in setup mode again.
// Firmware takes no update that is not dated later than the one before.
func SignedUpdate(v Variable, list []byte, key crypto.Signer, certificate *x509.Certificate, at time.Time) ([]byte, error) {
	at = at.UTC()
	if at.Year() < 2000 || at.Year() > 9999 {
		return nil, errors.New("the date of a key update is out of range")
	}
	stamp := timestamp(at)
	var what []byte
	for _, unit := range utf16.Encode([]rune(v.Name)) {
		what = binary.LittleEndian.AppendUint16(what, unit)
	}
	what = append(what, v.vendor[:]...)
	what = binary.LittleEndian.AppendUint32(what, VariableAttributes)
	what = append(append(what, stamp...), list...)
	// SignedData alone, without attributes: firmware of all ages takes this form.
	signed, err := signedBytes(key, certificate, oidData, nil, nil, sha256.Sum256(what))
	if err != nil {
		return nil, fmt.Errorf("signing an update of %s: %w", v.Name, err)
	}
	const header = 24
	out := binary.LittleEndian.AppendUint32(stamp, uint32(header+len(signed)))
	out = binary.LittleEndian.AppendUint16(out, certificateRevision)
	out = binary.LittleEndian.AppendUint16(out, certificateGUID)
	out = append(append(out, guidPKCS7[:]...), signed...)
	return append(out, list...), nil
}

// timestamp is EFI_TIME: no part of a second, no time zone.
func timestamp(at time.Time) []byte {
	out := binary.LittleEndian.AppendUint16(nil, uint16(at.Year()))
	out = append(out, byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second()), 0)
	return append(out, make([]byte, 8)...)
}
