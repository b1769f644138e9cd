package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// moduleFile is an ELF file with nothing but a .modinfo section.
func moduleFile(t *testing.T, info ...string) []byte {
	t.Helper()
	const names = "\x00.modinfo\x00.shstrtab\x00"
	text := strings.Join(info, "\x00") + "\x00"
	const headerSize, sectionSize = 64, 64
	textAt := uint64(headerSize)
	namesAt := textAt + uint64(len(text))
	sectionsAt := namesAt + uint64(len(names))
	var b bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: sectionsAt, Ehsize: headerSize, Shentsize: sectionSize, Shnum: 3, Shstrndx: 2}
	copy(header.Ident[:], "\x7fELF\x02\x01\x01")
	sections := []elf.Section64{{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: textAt, Size: uint64(len(text))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))}}
	for _, v := range []any{header, []byte(text), []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// metal's modules and those that they need come in an order in which each can be loaded; what is built in is left out.
func TestModuleOrder(t *testing.T) {
	packages := tree{}
	at := func(name string) string { return moduleRoot + "1/kernel/" + name + ".ko" }
	for name, needs := range map[string]string{"tg3": "ptp,libphy", "ptp": "pps-core", "pps-core": "", "libphy": "", "bonding": "tls", "tls": ""} {
		packages.put(at(name), &node{mode: 0o644, data: moduleFile(t, "license=GPL", "depends="+needs)})
	}
	packages.put(at("igb"), &node{mode: 0o644, data: moduleFile(t, "softdep=pre: ptp nosuch post: bonding", "depends=")})
	packages.write(moduleRoot+"1/modules.builtin", 0o644, "kernel/net/8021q.ko\n")
	k, err := newKernelModules(packages)
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.order([]string{"tg3", "bonding", "8021q", "tg3"}, []string{at("libphy")})
	if want := []string{at("pps-core"), at("ptp"), at("tg3"), at("tls"), at("bonding")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("order %q, want %q (%v)", got, want, err)
	}
	got, err = k.order([]string{"igb"}, nil)
	if want := []string{at("pps-core"), at("ptp"), at("igb")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("soft dependencies: order %q, want %q (%v)", got, want, err)
	}
	if _, err := k.order([]string{"nosuch"}, nil); err == nil || !strings.Contains(err.Error(), "neither built in nor in the kernel's package") {
		t.Errorf("a module that is nowhere: %v", err)
	}
	packages.put(at("tls"), &node{mode: 0o644, data: moduleFile(t, "depends=bonding")})
	if _, err := k.order([]string{"bonding"}, nil); err == nil || !strings.Contains(err.Error(), "needs itself") {
		t.Errorf("a circle: %v", err)
	}
}
