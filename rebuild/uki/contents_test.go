package uki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"

	"mayfly/rebuild/cpio"
)

func TestCheck(t *testing.T) {
	stub, trust := []byte("stub of an odd length"), []byte("{}")
	with := func(change func(*Parts)) []byte {
		p := parts
		var err error
		if p.Initrd, err = Initrd(stub, "/trust.json", trust); err != nil {
			t.Fatal(err)
		}
		change(&p)
		return build1(t, p)
	}
	further := func(names ...string) []byte {
		p, err := parse(with(func(*Parts) {}))
		if err != nil {
			t.Fatal(err)
		}
		var add []Section
		for _, name := range names {
			add = append(add, Section{Name: name, Data: []byte("evil")})
		}
		image, err := p.with(add)
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	patched := func(image []byte, old, change string) []byte {
		if !bytes.Contains(image, []byte(old)) || len(old) != len(change) {
			t.Fatalf("%q is not there", old)
		}
		return bytes.Replace(bytes.Clone(image), []byte(old), []byte(change), 1)
	}
	swapped := func() []byte { // .osrel and .cmdline, in the table alone
		image := with(func(*Parts) {})
		p, err := parse(image)
		if err != nil {
			t.Fatal(err)
		}
		at := p.table + 2*sectionHeader
		one, two := bytes.Clone(image[at:at+sectionHeader]), bytes.Clone(image[at+sectionHeader:at+2*sectionHeader])
		copy(image[at:], two)
		copy(image[at+sectionHeader:], one)
		return image
	}
	tests := []struct {
		name  string
		image []byte
		want  string
	}{
		{"no uname", with(func(p *Parts) { p.Uname = "" }), ""},
		{"a further initramfs, by the beginning of its name", further(".initrdX"), Differs},
		{"a further kernel", further(".linux2"), Differs},
		{"a further command line, signed", own(t, "fleet").sign(t, further(".cmdlin2")), Differs},
		{"a device tree", further(".dtb"), Differs},
		{"microcode", further(".ucode"), Differs},
		{"a picture", further(".splash"), Differs},
		{"a further section of the stub's own kind", further(".rodata"), Differs},
		{"the initramfs twice", patched(further(".initrdX"), ".initrdX", ".initrd\x00"), Malformed},
		{"the kernel twice", patched(further(".linuxX"), ".linuxX\x00", ".linux\x00\x00"), Malformed},
		{"the stub's own section under another name", patched(with(func(*Parts) {}), ".data\x00\x00\x00", ".dtb\x00\x00\x00\x00"), Differs},
		{"sections in another order", swapped(), Differs},
		{"something behind the sections", append(with(func(*Parts) {}), 0, 0, 0, 0, 0, 0, 0, 0), Differs},
		{"the trust policy with another mode", with(func(p *Parts) {
			var b bytes.Buffer
			if err := cpio.Write(&b, []cpio.File{{Path: "trust.json", Mode: 0o600, Data: trust}}); err != nil {
				t.Fatal(err)
			}
			p.Initrd = append(append(bytes.Clone(stub), make([]byte, alignUp(uint64(len(stub)), initrdAlign)-uint64(len(stub)))...), b.Bytes()...)
		}), Differs},
		{"good", with(func(*Parts) {}), ""},
		{"signed", own(t, "fleet").sign(t, with(func(*Parts) {})), ""},
		{"no image", nil, Malformed},
		{"a stub alone", made(""), Malformed},
		{"another kernel", with(func(p *Parts) { p.Kernel = made("other") }), Differs},
		{"another command line", with(func(p *Parts) { p.Cmdline += " init=/bin/sh" }), Differs},
		{"another stub", with(func(p *Parts) { p.Initrd = append([]byte("x"), p.Initrd...) }), Differs},
		{"no trust policy", with(func(p *Parts) { p.Initrd = stub }), Differs},
		{"more behind it", with(func(p *Parts) { p.Initrd = append(bytes.Clone(p.Initrd), p.Initrd[24:]...) }), Differs},
		{"another file", with(func(p *Parts) { p.Initrd, _ = Initrd(stub, "init", trust) }), Differs},
		{"something between", with(func(p *Parts) {
			p.Initrd = bytes.Clone(p.Initrd)
			p.Initrd[len(stub)] = 1
		}), Differs},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Check(tt.image, parts.Kernel, stub, parts.Cmdline, "/trust.json")
			if tt.want == "" {
				if err != nil || !bytes.Equal(got, trust) {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if r := (*Refusal)(nil); !errors.As(err, &r) || r.Reason != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	fleet, stranger := own(t, "fleet"), own(t, "stranger")
	image := build1(t, parts)
	got, err := Certificates(joined(fleet.sign(t, image), stranger.sign(t, image)))
	if err != nil || len(got) != 2 || !got[0].Equal(fleet.certificate) || !got[1].Equal(stranger.certificate) {
		t.Errorf("got %d certificates, %v", len(got), err)
	}
	if got, err := Certificates(image); err != nil || len(got) != 0 {
		t.Errorf("unsigned: got %d certificates, %v", len(got), err)
	}
	bad := fleet.sign(t, image)
	bad[len(image)+certificateHeader] ^= 1
	if _, err := Certificates(bad); err == nil {
		t.Error("of no PKCS #7 certificates were read")
	}
	if _, err := Verify(fleet.sign(t, image), []*x509.Certificate{}); err == nil {
		t.Error("verified with no certificate")
	}
}
