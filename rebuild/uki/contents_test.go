package uki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"
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
	tests := []struct {
		name  string
		image []byte
		want  string
	}{
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
