package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"mayfly/rebuild/cpio"
)

// Specification constants: the sections that systemd-stub looks for.
const (
	SectionOSRelease = ".osrel"
	SectionCmdline   = ".cmdline"
	SectionUname     = ".uname"
	SectionKernel    = ".linux"
	SectionInitrd    = ".initrd"

	// initializedData and readable are a section's characteristics.
	initializedData = 0x00000040
	readable        = 0x40000000
)

// Implementation constants.
const (
	pageSize    = 4096 // at which sections are loaded: the kernel is copied from there, page-wise is fastest
	initrdAlign = 4    // the kernel wants the start of a further archive there
	maxText     = 4096 // bytes of each text
)

// Parts are what a unified kernel image is made of. No text ends in a newline that is not wanted in it: the command line is taken as it is.
type Parts struct {
	Stub      []byte // systemd's linuxx64.efi.stub, unsigned
	Kernel    []byte // vmlinuz with its own EFI stub; its signature, if any, stays
	Initrd    []byte
	Cmdline   string
	OSRelease string // ID=..., NAME=..., as in os-release(5)
	Uname     string // the kernel's release; may be empty
}

// Build makes an unsigned unified kernel image. Its size is a multiple of 8, so that a signature can follow without padding.
func Build(p Parts) ([]byte, error) {
	out, err := build(p)
	if err != nil {
		return nil, fmt.Errorf("making a unified kernel image: %w", err)
	}
	return out, nil
}

func build(p Parts) ([]byte, error) {
	for name, text := range map[string]string{"command line": p.Cmdline, "os-release": p.OSRelease, "uname": p.Uname} {
		if len(text) > maxText || strings.ContainsFunc(text, func(r rune) bool { return (r < ' ' && r != '\n') || r > '~' }) {
			return nil, fmt.Errorf("the %s is longer than %d bytes, or not printable ASCII", name, maxText)
		}
	}
	if p.Cmdline == "" || p.OSRelease == "" || len(p.Initrd) == 0 {
		return nil, errors.New("it needs an initramfs, a command line and an os-release")
	}
	if _, err := parse(p.Kernel); err != nil {
		return nil, fmt.Errorf("the kernel: %w", err)
	}
	stub, err := parse(p.Stub)
	switch {
	case err != nil:
		return nil, fmt.Errorf("systemd's stub: %w", err)
	case len(stub.certificates) > 0:
		return nil, errors.New("systemd's stub is signed already: sections can only be added to an unsigned one")
	case stub.fileAlign%certificateAlign != 0:
		return nil, fmt.Errorf("systemd's stub: file alignment %d", stub.fileAlign)
	}
	if err := onlyStub(stub.sections); err != nil {
		return nil, fmt.Errorf("systemd's stub: %w", err)
	}
	return stub.with(added(p))
}

// with writes the image with further sections, of other names, behind its own. The room for their headers has to be there.
func (p *image) with(add []Section) ([]byte, error) {
	first := p.table + len(p.sections)*sectionHeader
	if first+len(add)*sectionHeader > p.headers {
		return nil, malformed("no room for %d more section headers", len(add))
	}
	if len(bytes.Trim(p.data[first:p.headers], "\x00")) > 0 {
		return nil, malformed("something lies behind the section headers")
	}
	total := uint64(p.end)
	for _, s := range add {
		if len(s.Data) > MaxImage {
			return nil, fmt.Errorf("section %s has %d bytes, more than %d", s.Name, len(s.Data), MaxImage)
		}
		total += alignUp(uint64(len(s.Data)), uint64(p.fileAlign))
	}
	if total > MaxImage {
		return nil, fmt.Errorf("%d bytes, more than %d", total, MaxImage)
	}
	out := make([]byte, total)
	copy(out, p.data[:p.end])
	put := binary.LittleEndian
	at, address := uint64(p.end), uint64(p.loaded)
	for i, s := range add {
		raw := alignUp(uint64(len(s.Data)), uint64(p.fileAlign))
		address = alignUp(address, max(pageSize, uint64(p.sectionAlign)))
		header := out[first+i*sectionHeader:]
		copy(header[:sectionName], s.Name)
		put.PutUint32(header[8:], uint32(len(s.Data)))
		put.PutUint32(header[12:], uint32(address))
		put.PutUint32(header[16:], uint32(raw))
		put.PutUint32(header[20:], uint32(at))
		put.PutUint32(header[36:], initializedData|readable)
		copy(out[at:], s.Data)
		at, address = at+raw, address+raw
	}
	put.PutUint64(out[p.optional-coffHeader+12:], 0) // its symbols were behind its sections, and are left out
	put.PutUint16(out[p.optional-coffHeader+6:], uint16(len(p.sections)+len(add)))
	put.PutUint32(out[p.optional+offSizeOfImage:], uint32(alignUp(address, uint64(p.sectionAlign))))
	put.PutUint32(out[p.optional+offCheckSum:], 0) // firmware does not look at it; a wrong one would be worse
	if _, err := parse(out); err != nil {
		return nil, err
	}
	return out, nil
}

func alignUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

// Initrd joins a fleet's initramfs from the release's stub.cpio and the trust policy, which the machine finds as /name.
func Initrd(stub []byte, name string, trust []byte) ([]byte, error) {
	out := bytes.NewBuffer(bytes.Clone(stub))
	if rest := out.Len() % initrdAlign; rest != 0 {
		out.Write(make([]byte, initrdAlign-rest))
	}
	err := cpio.Write(out, []cpio.File{{Path: strings.TrimPrefix(name, "/"), Mode: fs.FileMode(0o644), Data: trust}})
	return out.Bytes(), err
}
