package uki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"mayfly/testenv/tinyefi"
)

// made is a small EFI image.
func made(behind string) []byte { return tinyefi.Image(behind) }

// Offsets in made's image.
const (
	madeOptional = tinyefi.Optional
	madeTable    = tinyefi.Table
	madeSecurity = tinyefi.Security
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
