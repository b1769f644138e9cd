package uki

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	p, err := parse(made("behind"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.sections) != 2 || p.sections[1].Name != ".data" || p.sections[1].Address != 0x2000 || p.sections[1].Size != 500 || p.sections[1].Data[0] != 'b' {
		t.Errorf("got sections %+v", p.sections)
	}
}

func TestMalformed(t *testing.T) {
	put32 := func(at int, n uint32) func([]byte) []byte {
		return func(p []byte) []byte { binary.LittleEndian.PutUint32(p[at:], n); return p }
	}
	put16 := func(at int, n uint16) func([]byte) []byte {
		return func(p []byte) []byte { binary.LittleEndian.PutUint16(p[at:], n); return p }
	}
	second := madeTable + sectionHeader
	tests := []struct {
		name  string
		alter func([]byte) []byte
		want  string
	}{
		{"nothing", func([]byte) []byte { return nil }, "no DOS header"},
		{"no MZ", put16(0, 0), "no DOS header"},
		{"PE header before the end of the first", put32(dosPEOffset, 60), "no PE header"},
		{"PE header behind the file", put32(dosPEOffset, 0xfffffff0), "no PE header"},
		{"PE header at an odd place", put32(dosPEOffset, 66), "no PE header"},
		{"another machine", put16(68, 0x14c), "machine is 0x14c"},
		{"32 bits", put16(madeOptional, 0x10b), "no PE32+ optional header"},
		{"small optional header", put16(84, 100), "no PE32+ optional header"},
		{"a driver", put16(madeOptional+offSubsystem, 11), "subsystem is 11"},
		{"few directories", put32(madeOptional+offDirectories, 4), "4 data directories"},
		{"many directories", put32(madeOptional+offDirectories, 0xffffffff), "data directories"},
		{"alignment of nothing", put32(madeOptional+offFileAlignment, 0), "alignment of 0"},
		{"alignment of no power", put32(madeOptional+offSectionAlignment, 600), "alignment of 600"},
		{"no section", put16(70, 0), "0 sections"},
		{"too many sections", put16(70, 33), "33 sections"},
		{"sections longer than the headers", put16(70, 30), "headers of 1024 bytes"},
		{"headers behind the file", put32(madeOptional+offSizeOfHeaders, 1<<15), "headers of 32768 bytes"},
		{"section behind the file", put32(second+20, 0xffffff00), "ends behind the file"},
		{"section over another", put32(second+20, 1024), "begins at 1024"},
		{"gap between sections", put32(second+16, 100), ""}, // what follows lies behind the last: hashed, not loaded
		{"gap before a section", put32(madeTable+16, 256), `section ".data" begins at 1536, the one before ends at 1280`},
		{"loaded over another", put32(second+12, 0x1100), `section ".data" is loaded over another`},
		{"loaded over the headers", put32(madeTable+12, 0x100), `section ".text" is loaded over another`},
		{"loaded behind the image", put32(second+12, 0x2f00), "behind the image"},
		{"certificates in the middle", put32(madeSecurity, 1024), "not the rest of the file"},
		{"certificates behind the file", func(p []byte) []byte { return put32(madeSecurity+4, 8)(put32(madeSecurity, uint32(len(p)))(p)) }, "not the rest of the file"},
		{"truncated", func(p []byte) []byte { return p[:len(p)-1] }, "ends behind the file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(tt.alter(made("")))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// The hash leaves out the checksum, where the certificates are, and these themselves; nothing else.
func TestAuthenticode(t *testing.T) {
	image := build1(t, parts)
	sum := func(p []byte) [sha256.Size]byte {
		t.Helper()
		h, err := Authenticode(p)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	want := sum(image)
	for _, at := range []int{madeOptional + offCheckSum, madeOptional + offCheckSum + 3} {
		other := bytes.Clone(image)
		other[at] ^= 1
		if sum(other) != want {
			t.Errorf("byte %d counts", at)
		}
	}
	for _, at := range []int{2, madeOptional + 2, madeOptional + offCheckSum + 6, madeTable + 4*sectionHeader, 1100, len(image) - 1} {
		other := bytes.Clone(image)
		other[at] ^= 1
		if sum(other) == want {
			t.Errorf("byte %d does not count", at)
		}
	}
	signed := own(t, "fleet").sign(t, image)
	if sum(signed) != want {
		t.Error("signing changes the hash")
	}
	if back, err := Unsigned(signed); err != nil || !bytes.Equal(back, image) {
		t.Errorf("without its signature the image is another: %v", err)
	}
}

func FuzzImage(f *testing.F) {
	image := build1(f, parts)
	f.Add(made(""))
	f.Add(made("behind"))
	f.Add(image)
	f.Add(own(f, "fleet").sign(f, image))
	f.Add(own(f, "fleet").sign(f, image)[:len(image)+40])
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parse(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("got %v", err)
			}
			return
		}
		hash := p.authenticode()
		back, err := Unsigned(data)
		if err != nil {
			t.Fatalf("without certificates it cannot be read: %v", err)
		}
		if again, err := Authenticode(back); err != nil || again != hash {
			t.Fatalf("without certificates it has another hash: %v", err)
		}
		if held, err := Read(data); err == nil && exact(data, held) == nil {
			for _, s := range p.sections { // what systemd-stub would find is what was read, and there once
				for _, name := range []string{SectionOSRelease, SectionCmdline, SectionUname, SectionKernel, SectionInitrd, ".dtb", ".ucode", ".splash"} {
					if s.Name != name && strings.HasPrefix(s.Name, name) {
						t.Fatalf("section %q passes", s.Name)
					}
				}
			}
		}
		if _, err := Verify(data, nil); err == nil {
			t.Fatal("verified with no certificate")
		}
		with := parts
		with.Stub = data
		if built, err := Build(with); err == nil {
			if _, err := parse(built); err != nil {
				t.Fatalf("what was built from it cannot be read: %v", err)
			}
		}
	})
}
