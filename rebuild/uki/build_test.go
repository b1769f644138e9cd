package uki

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"mayfly/rebuild/cpio"
)

func TestBuild(t *testing.T) {
	image := build1(t, parts)
	if !bytes.Equal(image, build1(t, parts)) {
		t.Error("the same parts gave other bytes")
	}
	if len(image)%certificateAlign != 0 {
		t.Errorf("%d bytes: no signature can follow", len(image))
	}
	sections, err := Sections(image)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range sections[2:] {
		got[s.Name] = string(s.Data[:s.Size])
		if s.Address%pageSize != 0 {
			t.Errorf("section %s is loaded at %#x", s.Name, s.Address)
		}
	}
	want := map[string]string{SectionOSRelease: parts.OSRelease, SectionCmdline: parts.Cmdline, SectionUname: parts.Uname,
		SectionKernel: string(parts.Kernel), SectionInitrd: "initrd"}
	if !maps.Equal(got, want) {
		t.Errorf("got %d sections %q", len(got), slices.Sorted(maps.Keys(got)))
	}
	if bytes.Contains(image, []byte("symbols")) {
		t.Error("the stub's symbols are in it")
	}
}

func TestBuildRefuses(t *testing.T) {
	signed := own(t, "fleet").sign(t, made("12345678"))
	twice := parts
	twice.Stub = build1(t, parts)
	tests := []struct {
		name  string
		parts func(p *Parts)
		want  string
	}{
		{"no initramfs", func(p *Parts) { p.Initrd = nil }, "needs an initramfs"},
		{"no command line", func(p *Parts) { p.Cmdline = "" }, "needs an initramfs, a command line"},
		{"command line with a NUL", func(p *Parts) { p.Cmdline = "a\x00b" }, "the command line is longer"},
		{"long command line", func(p *Parts) { p.Cmdline = strings.Repeat("a", maxText+1) }, "the command line is longer"},
		{"os-release of no text", func(p *Parts) { p.OSRelease = "é" }, "the os-release is longer"},
		{"kernel without EFI stub", func(p *Parts) { p.Kernel = []byte("kernel") }, "the kernel: not a well-formed EFI image"},
		{"no stub", func(p *Parts) { p.Stub = nil }, "systemd's stub: not a well-formed EFI image"},
		{"signed stub", func(p *Parts) { p.Stub = signed }, "signed already"},
		{"unified already", func(p *Parts) { p.Stub = twice.Stub }, `section ".osrel" is none of systemd's stub`},
		{"no room", func(p *Parts) {
			p.Stub = made("")
			p.Stub[madeTable+2*sectionHeader+100] = 1
		}, "something lies behind the section headers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := parts
			tt.parts(&p)
			if _, err := Build(p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestInitrd(t *testing.T) {
	var trust bytes.Buffer
	if err := cpio.Write(&trust, []cpio.File{{Path: "trust.json", Mode: 0o644, Data: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	for _, stub := range []string{"stub", "odd"} {
		got, err := Initrd([]byte(stub), "/trust.json", []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		want := append(append([]byte(stub), make([]byte, 4-len(stub))...), trust.Bytes()...)
		if !bytes.Equal(got, want) {
			t.Errorf("after %q: got %q", stub, got)
		}
	}
}
