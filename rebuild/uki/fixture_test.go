package uki

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"testing"
	"time"
)

// made is a small EFI image, written by hand: headers of 1024 bytes, then .text and .data, then what is given as behind.
func made(behind string) []byte {
	put := binary.LittleEndian
	p := make([]byte, 1024)
	copy(p, "MZ")
	put.PutUint32(p[dosPEOffset:], 64)
	copy(p[64:], "PE\x00\x00")
	put.PutUint16(p[68:], machineX64)
	put.PutUint16(p[70:], 2)
	put.PutUint16(p[84:], optionalFixed+16*directorySize)
	optional := p[64+coffHeader:]
	put.PutUint16(optional, optionalPE32)
	put.PutUint32(optional[offSectionAlignment:], 512)
	put.PutUint32(optional[offFileAlignment:], 512)
	put.PutUint32(optional[offSizeOfImage:], 0x3000)
	put.PutUint32(optional[offSizeOfHeaders:], 1024)
	put.PutUint32(optional[offCheckSum:], 0xabcdef)
	put.PutUint16(optional[offSubsystem:], efiApplication)
	put.PutUint32(optional[offDirectories:], 16)
	for i, name := range []string{".text", ".data"} {
		header := p[madeTable+i*sectionHeader:]
		copy(header, name)
		put.PutUint32(header[8:], 500)
		put.PutUint32(header[12:], uint32(0x1000*(i+1)))
		put.PutUint32(header[16:], 512)
		put.PutUint32(header[20:], uint32(1024+512*i))
		p = append(p, bytes.Repeat([]byte{byte('a' + i)}, 512)...)
	}
	return append(p, behind...)
}

// Offsets in made's image.
const (
	madeOptional = 64 + coffHeader
	madeTable    = madeOptional + optionalFixed + 16*directorySize
	madeSecurity = madeOptional + optionalFixed + directorySecure*directorySize
)

var parts = Parts{Stub: made("symbols"), Kernel: made(""), Initrd: []byte("initrd"), Cmdline: "console=ttyS0 quiet", OSRelease: "ID=mayfly\n", Uname: "6.1"}

func build1(t testing.TB, p Parts) []byte {
	t.Helper()
	image, err := Build(p)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// owner is a key with its certificate.
type owner struct {
	key         *rsa.PrivateKey
	certificate *x509.Certificate
}

var owners struct {
	once sync.Once
	all  map[string]owner
	err  error
}

// own returns one of the tests' keys: "fleet" or "stranger".
func own(t testing.TB, name string) owner {
	t.Helper()
	owners.once.Do(func() {
		owners.all = map[string]owner{}
		for _, name := range []string{"fleet", "stranger"} {
			var o owner
			if o.key, owners.err = rsa.GenerateKey(rand.Reader, MinKeyBits); owners.err != nil {
				return
			}
			from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			if o.certificate, owners.err = Certify(name+" Secure Boot db", o.key, from, from.AddDate(20, 0, 0)); owners.err != nil {
				return
			}
			owners.all[name] = o
		}
	})
	if owners.err != nil {
		t.Fatal(owners.err)
	}
	return owners.all[name]
}

func (o owner) sign(t testing.TB, image []byte) []byte {
	t.Helper()
	out, err := Sign(image, o.key, o.certificate)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
