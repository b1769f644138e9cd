package uki

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// stubSections are what systemd's stub itself may consist of. The stub finds its work by how a section's name begins, and takes the last that fits: a
// section .initrd2 is its initramfs, and .dtb or .ucode are taken as well. So what has any other name is in no image.
var stubSections = []string{".text", ".rodata", ".rdata", ".data", ".bss", ".reloc", ".dynamic", ".dynsym", ".dynstr", ".hash", ".gnu.hash", ".rela", ".sbat", ".sdmagic"}

// onlyStub refuses a stub with sections that are not a stub's own.
func onlyStub(sections []Section) error {
	for _, s := range sections {
		if !slices.Contains(stubSections, s.Name) {
			return malformed("section %q is none of systemd's stub", s.Name)
		}
	}
	return nil
}

// exact wants an image to be a stub and its parts as Build puts them together, byte for byte: no section more, none in another place, nothing
// behind them. What the stub's own sections hold is not looked at.
func exact(data []byte, p Parts) error {
	data, err := Unsigned(data)
	if err != nil {
		return err
	}
	whole, err := parse(data)
	if err != nil {
		return err
	}
	add := added(p)
	n := len(whole.sections) - len(add)
	if n < 1 {
		return malformed("%d sections", len(whole.sections))
	}
	if err := onlyStub(whole.sections[:n]); err != nil {
		return err
	}
	first := whole.sections[n]
	if int64(first.offset) > int64(len(data)) {
		return malformed("section %q", first.Name)
	}
	bare := bytes.Clone(data[:first.offset])
	if len(bare) < whole.headers {
		return malformed("section %q lies in the headers", first.Name)
	}
	clear(bare[whole.table+n*sectionHeader : whole.table+len(whole.sections)*sectionHeader])
	binary.LittleEndian.PutUint16(bare[whole.optional-coffHeader+6:], uint16(n))
	binary.LittleEndian.PutUint32(bare[whole.optional+offSizeOfImage:], first.Address)
	stub, err := parse(bare)
	if err != nil {
		return err
	}
	again, err := stub.with(add)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return malformed("it is not what its stub and its parts make")
	}
	return nil
}

// added are the sections of an image behind the stub's, in their order.
func added(p Parts) []Section {
	add := []Section{{Name: SectionOSRelease, Data: []byte(p.OSRelease)}, {Name: SectionCmdline, Data: []byte(p.Cmdline)}}
	if p.Uname != "" {
		add = append(add, Section{Name: SectionUname, Data: []byte(p.Uname)})
	}
	return append(add, Section{Name: SectionKernel, Data: p.Kernel}, Section{Name: SectionInitrd, Data: p.Initrd})
}
