package uki

import (
	"crypto/sha256"
	"errors"
	"hash"
	"unicode/utf16"
)

// sha is a SHA-256, or the value of a register.
type sha = [sha256.Size]byte

// Registers are what the TPM's registers hold when systemd-stub 252 and a kernel's own EFI stub (6.1) have started an image.
type Registers struct {
	Sections sha // PCR 11: systemd-stub measures each section that it uses, its name and then its contents

	options sha       // the kernel measures its command line as it was given, in UTF-16 with a zero at its end
	initrd  hash.Hash // of the initramfs, whole
	padding int       // what comes before files that systemd-stub adds
}

// Measure computes what an image's sections give. The image may be signed or not.
func Measure(image []byte) (*Registers, error) {
	p, err := Read(image)
	if err != nil {
		return nil, err
	}
	r := &Registers{initrd: sha256.New()}
	// In the order that systemd-stub has in a table of its own, and without the kernel's release, which version 252 does not look at.
	for _, s := range []struct {
		name string
		data []byte
	}{{SectionKernel, p.Kernel}, {SectionOSRelease, []byte(p.OSRelease)}, {SectionCmdline, []byte(p.Cmdline)}, {SectionInitrd, p.Initrd}} {
		r.Sections = extend(extend(r.Sections, sha256.Sum256([]byte(s.name+"\x00"))), sha256.Sum256(s.data))
	}
	var options []byte
	for _, unit := range utf16.Encode([]rune(p.Cmdline + "\x00")) {
		options = append(options, byte(unit), byte(unit>>8))
	}
	r.options = sha256.Sum256(options)
	r.initrd.Write(p.Initrd)
	r.padding = (initrdAlign - len(p.Initrd)%initrdAlign) % initrdAlign
	return r, nil
}

// Loaded is what PCR 9 holds when these files lay beside the image: the kernel's command line, and the initramfs that systemd-stub hands over, which
// is the image's own, and behind it the archive of the files.
func (r *Registers) Loaded(files []Credential) (sha, error) {
	copier, ok := r.initrd.(hash.Cloner)
	if !ok {
		return sha{}, errors.New("SHA-256 that cannot be copied")
	}
	h, err := copier.Clone()
	if err != nil {
		return sha{}, err
	}
	if len(files) > 0 {
		h.Write(make([]byte, r.padding))
		h.Write(credentialArchive(files))
	}
	return extend(extend(sha{}, r.options), sha(h.Sum(nil))), nil
}

// extend is the TPM's operation on a register.
func extend(pcr, d sha) sha { return sha256.Sum256(append(pcr[:], d[:]...)) }
