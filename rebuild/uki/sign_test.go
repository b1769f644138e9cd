package uki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSign(t *testing.T) {
	fleet, stranger := own(t, "fleet"), own(t, "stranger")
	image := build1(t, parts)
	signed := fleet.sign(t, image)
	if !bytes.Equal(signed, fleet.sign(t, image)) {
		t.Error("the same image and key gave another signature")
	}
	certificates := []*x509.Certificate{stranger.certificate, fleet.certificate}
	by, err := Verify(signed, certificates)
	if err != nil || by != fleet.certificate {
		t.Fatalf("got %v, %v", by, err)
	}
	// A second signature harms nothing, whoever made it, and before or after ours.
	theirs := stranger.sign(t, image)
	for name, both := range map[string][]byte{"theirs last": joined(signed, theirs), "theirs first": joined(theirs, signed)} {
		if by, err := Verify(both, certificates[1:]); err != nil || by != fleet.certificate {
			t.Errorf("%s: got %v, %v", name, by, err)
		}
	}
}

// joined is the first image with the second's signature as well.
func joined(a, b []byte) []byte {
	p, _ := parse(b)
	out := append(bytes.Clone(a), p.certificates...)
	at := madeSecurity + 4
	binary.LittleEndian.PutUint32(out[at:], binary.LittleEndian.Uint32(out[at:])+uint32(len(p.certificates)))
	return out
}

func TestVerifyRefuses(t *testing.T) {
	fleet, stranger := own(t, "fleet"), own(t, "stranger")
	image := build1(t, parts)
	other := parts
	other.Cmdline = "console=ttyS0 debug"
	tests := []struct {
		name  string
		image func() []byte
		want  string
	}{
		{"unsigned", func() []byte { return image }, NotSigned},
		{"by a stranger", func() []byte { return stranger.sign(t, image) }, UnknownCert},
		{"no image", func() []byte { return []byte("MZ") }, Malformed},
		{"one byte of the last section", func() []byte {
			p := fleet.sign(t, image)
			p[len(image)-1] ^= 1
			return p
		}, Altered},
		{"one byte of the headers", func() []byte {
			p := fleet.sign(t, image)
			p[madeOptional+2] ^= 1
			return p
		}, Altered},
		{"the signature of another command line", func() []byte {
			p := fleet.sign(t, build1(t, other))
			q, _ := parse(fleet.sign(t, image))
			return append(bytes.Clone(p[:len(p)-len(q.certificates)]), q.certificates...)
		}, Altered},
		{"one byte of the signature", func() []byte {
			p := fleet.sign(t, image)
			q, _ := parse(p)
			end := certificateHeader + bytes.LastIndex(q.certificates[certificateHeader:], []byte{0x04, 0x82, 0x01, 0x00})
			p[len(image)+end+100] ^= 1
			return p
		}, UnknownCert},
		{"no PKCS #7", func() []byte {
			p := fleet.sign(t, image)
			p[len(image)+certificateHeader] ^= 1
			return p
		}, Malformed},
		{"a certificate of another type", func() []byte {
			p := fleet.sign(t, image)
			p[len(image)+6] = 1
			return p
		}, Malformed},
		{"a certificate longer than the table", func() []byte {
			p := fleet.sign(t, image)
			binary.LittleEndian.PutUint32(p[len(image):], 0xfffffffc)
			return p
		}, Malformed},
		{"an empty certificate", func() []byte {
			p := fleet.sign(t, image)
			binary.LittleEndian.PutUint32(p[len(image):], 0)
			return p
		}, Malformed},
		{"too many signatures", func() []byte {
			p := fleet.sign(t, image)
			one := p
			for range maxSignatures {
				p = joined(p, one)
			}
			return p
		}, Malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			by, err := Verify(tt.image(), []*x509.Certificate{fleet.certificate})
			var r *Refusal
			if by != nil || !errors.As(err, &r) || r.Reason != tt.want {
				t.Errorf("got %v, %v, want %s", by, err, tt.want)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	fleet, stranger := own(t, "fleet"), own(t, "stranger")
	image := build1(t, parts)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]error{
		"the key is not that of the certificate": errOf(Sign(image, stranger.key, fleet.certificate)),
		"the image is signed already":            errOf(Sign(fleet.sign(t, image), fleet.key, fleet.certificate)),
		"no multiple of 8":                       errOf(Sign(made("odd"), fleet.key, fleet.certificate)),
		"not 1024":                               errOf2(Certify("weak", weak, time.Now(), time.Now().Add(time.Hour))),
		"is RSA, not *ecdsa.PublicKey":           errOf2(Certify("curve", curve, time.Now(), time.Now().Add(time.Hour))),
	} {
		if got == nil || !strings.Contains(got.Error(), name) {
			t.Errorf("got %v, want %q", got, name)
		}
	}
}

func errOf(_ []byte, err error) error             { return err }
func errOf2(_ *x509.Certificate, err error) error { return err }

// Debian's sbsigntool believes our signatures, and we its.
func TestSignPeers(t *testing.T) {
	for _, program := range []string{"sbverify", "sbsign"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not installed (Debian: sbsigntool)", program)
		}
	}
	fleet, stranger := own(t, "fleet"), own(t, "stranger")
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate := func(o owner) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.certificate.Raw})
	}
	cert, other := write("fleet.pem", certificate(fleet)), write("stranger.pem", certificate(stranger))
	image := build1(t, parts)
	signed := fleet.sign(t, image)
	altered := bytes.Clone(signed)
	altered[len(image)-1] ^= 1
	for _, tt := range []struct {
		name, file, cert string
		ok               bool
	}{
		{"ours", write("signed.efi", signed), cert, true},
		{"another certificate", write("signed.efi", signed), other, false},
		{"altered", write("altered.efi", altered), cert, false},
	} {
		out, err := exec.Command("sbverify", "--cert", tt.cert, tt.file).CombinedOutput()
		if (err == nil) != tt.ok {
			t.Errorf("sbverify, %s: %v: %s", tt.name, err, out)
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(fleet.key)
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(dir, "theirs.efi")
	cmd := exec.Command("sbsign", "--key", write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})), "--cert", cert, "--output", theirs, write("image.efi", image))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sbsign: %v: %s", err, out)
	}
	data, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(data, []*x509.Certificate{fleet.certificate}); err != nil {
		t.Errorf("signed by sbsign: %v", err)
	}
}

func FuzzSignature(f *testing.F) {
	fleet := own(f, "fleet")
	content := indirectData([32]byte{1})
	good, err := contentSigned(fleet.key, fleet.certificate, content)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(append(bytes.Clone(good), 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, hash, err := readSignature(data)
		if err != nil {
			return
		}
		digest, err := contentDigest(m.content)
		if err != nil {
			t.Fatalf("read, and no content: %v", err)
		}
		if m.by(fleet.certificate, digest) && hash != [32]byte{1} {
			t.Fatal("signs what it never signed")
		}
	})
}
