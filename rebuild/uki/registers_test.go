package uki

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// What an image makes registers hold, against the same by hand. That systemd-stub and a kernel do so is medium.TestSecureBoot's to say.
func TestMeasure(t *testing.T) {
	p := parts
	p.Cmdline = "console=ttyS0 quiet loglevel=3 panic=-1" // of the boots whose logs are in rebuild/attest/testdata
	image, err := Build(p)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Measure(image)
	if err != nil {
		t.Fatal(err)
	}
	register := func(measured ...string) (v sha) {
		for _, m := range measured {
			sum := sha256.Sum256([]byte(m))
			v = sha256.Sum256(append(v[:], sum[:]...))
		}
		return v
	}
	if want := register(".linux\x00", string(p.Kernel), ".osrel\x00", p.OSRelease, ".cmdline\x00", p.Cmdline, ".initrd\x00", string(p.Initrd)); r.Sections != want {
		t.Errorf("sections: got %x, want %x", r.Sections, want)
	}
	const options = "01d52af97c5e2cfe" // in those logs
	if got := hex.EncodeToString(r.options[:]); got[:len(options)] != options {
		t.Errorf("command line: got %s", got)
	}
	var wide string
	for _, c := range p.Cmdline + "\x00" {
		wide += string(c) + "\x00"
	}
	files := []Credential{{Name: "ticket.json", Data: []byte("ticket")}}
	for _, tt := range []struct {
		name  string
		files []Credential
		want  sha
	}{
		{"alone", nil, register(wide, string(p.Initrd))},
		{"with a file", files, register(wide, "initrd\x00\x00"+string(credentialArchive(files)))},
		{"alone again", nil, register(wide, string(p.Initrd))},
	} {
		if got, err := r.Loaded(tt.files); err != nil || got != tt.want {
			t.Errorf("%s: got %x, %v, want %x", tt.name, got, err, tt.want)
		}
	}
	if _, err := Measure(image[:len(image)/2]); err == nil {
		t.Error("half an image")
	}
}
