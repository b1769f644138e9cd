package uki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"mayfly/rebuild/cpio"
)

// Differs is the reason for an image that does not hold what it is said to be made of.
const Differs = "uki_differs"

// maxCertificates bounds how many certificates of a signature are read.
const maxCertificates = 16

// Read returns what a unified kernel image was made of, but for the stub. It says nothing about signatures.
func Read(data []byte) (Parts, error) {
	sections, err := Sections(data)
	if err != nil {
		return Parts{}, err
	}
	found := map[string][]byte{}
	for _, s := range sections {
		if _, twice := found[s.Name]; twice {
			return Parts{}, malformed("section %q is there twice", s.Name)
		}
		if int(s.Size) > len(s.Data) {
			found[s.Name] = nil // not of ours
			continue
		}
		found[s.Name] = s.Data[:s.Size]
	}
	for _, name := range []string{SectionOSRelease, SectionCmdline, SectionKernel, SectionInitrd} {
		if len(found[name]) == 0 {
			return Parts{}, malformed("no section %s", name)
		}
	}
	return Parts{Kernel: found[SectionKernel], Initrd: found[SectionInitrd], Cmdline: string(found[SectionCmdline]),
		OSRelease: string(found[SectionOSRelease]), Uname: string(found[SectionUname])}, nil
}

// Check compares an image with what it is said to be made of: the kernel, the release's stub.cpio and the command line. What the
// initramfs holds beyond the stub has to be one file of this name, the fleet's trust policy, and is returned. The image has no section but
// systemd's stub's own and these, as Build lays them. What is in the stub's own is not compared: the release's lock file pins it, and who builds
// the image again compares the whole.
func Check(data, kernel, stub []byte, cmdline, name string) (trust []byte, err error) {
	p, err := Read(data)
	if err != nil {
		return nil, refuse(Malformed, "%w", err)
	}
	if err := exact(data, p); err != nil {
		return nil, refuse(Differs, "%w", err)
	}
	switch {
	case !bytes.Equal(p.Kernel, kernel):
		return nil, refuse(Differs, "its kernel is not the release's")
	case p.Cmdline != cmdline:
		return nil, refuse(Differs, "its command line is %.200q, not %.200q", p.Cmdline, cmdline)
	case !bytes.HasPrefix(p.Initrd, stub):
		return nil, refuse(Differs, "its initramfs does not begin with the release's stub.cpio")
	}
	at := alignUp(uint64(len(stub)), initrdAlign)
	if at > uint64(len(p.Initrd)) {
		return nil, refuse(Differs, "its initramfs holds no trust policy")
	}
	files, rest, err := cpio.Read(p.Initrd[at:])
	name = strings.TrimPrefix(name, "/")
	if err != nil || len(rest) > 0 || len(files) != 1 || files[0].Path != name || len(bytes.Trim(p.Initrd[len(stub):at], "\x00")) > 0 {
		return nil, refuse(Differs, "its initramfs holds other things than stub.cpio and %s", name)
	}
	again, err := Initrd(stub, name, files[0].Data)
	if err != nil || !bytes.Equal(again, p.Initrd) {
		return nil, refuse(Differs, "its initramfs is not what stub.cpio and %s make", name)
	}
	return files[0].Data, nil
}

// Certificates returns those that an image's signatures bring along. To bring one proves nothing: choose among them by their
// hashes, and Verify with what was chosen.
func Certificates(data []byte) ([]*x509.Certificate, error) {
	p, err := parse(data)
	if err != nil {
		return nil, err
	}
	entries, err := p.entries()
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, entry := range entries {
		var info, wrapped, signed, list cryptobyte.String
		in := cryptobyte.String(entry)
		var present bool
		if !in.ReadASN1(&info, der.SEQUENCE) || !info.SkipASN1(der.OBJECT_IDENTIFIER) || !info.ReadASN1(&wrapped, der.Tag(0).ContextSpecific().Constructed()) ||
			!wrapped.ReadASN1(&signed, der.SEQUENCE) || !signed.SkipASN1(der.INTEGER) || !signed.SkipASN1(der.SET) || !signed.SkipASN1(der.SEQUENCE) ||
			!signed.ReadOptionalASN1(&list, &present, der.Tag(0).ContextSpecific().Constructed()) {
			return nil, errMessage
		}
		for !list.Empty() {
			var one cryptobyte.String
			if len(all) == maxCertificates || !list.ReadASN1Element(&one, der.SEQUENCE) {
				return nil, fmt.Errorf("%w: its certificates", errMessage)
			}
			c, err := x509.ParseCertificate(one)
			if err != nil {
				return nil, errors.Join(errMessage, err)
			}
			all = append(all, c)
		}
	}
	return all, nil
}
