package uki

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Specification constants of PE32+ files for x86-64.
const (
	dosHeader       = 64
	dosPEOffset     = 0x3c
	coffHeader      = 24 // with the signature before it
	machineX64      = 0x8664
	optionalPE32    = 0x20b
	optionalFixed   = 112 // before the data directories
	directorySize   = 8
	directorySecure = 4
	sectionHeader   = 40
	sectionName     = 8
	efiApplication  = 10

	certificateAlign    = 8
	certificateHeader   = 8
	certificateRevision = 0x0200
	certificatePKCS7    = 0x0002 // WIN_CERT_TYPE_PKCS_SIGNED_DATA
)

// Offsets in the optional header.
const (
	offSectionAlignment = 32
	offFileAlignment    = 36
	offSizeOfImage      = 56
	offSizeOfHeaders    = 60
	offCheckSum         = 64
	offSubsystem        = 68
	offDirectories      = 108
)

// Implementation limits.
const (
	// MaxImage bounds an image, in bytes.
	MaxImage    = 512 << 20
	maxSections = 32
	maxAlign    = 64 << 10
	maxHeaders  = 64 << 10
)

// ErrFormat is wrapped by every complaint about a file that is no PE image of the strict kind that is read here.
var ErrFormat = errors.New("not a well-formed EFI image")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Section is one section of an image.
type Section struct {
	Name    string
	Address uint32 // when loaded
	Size    uint32 // when loaded
	Data    []byte // as in the file, with its padding
	offset  uint32
}

// image is a PE file whose headers and sections follow each other: nothing lies between or over. What lies behind the sections (a table
// of symbols, as a rule) is hashed and not loaded; the certificates come last.
type image struct {
	data         []byte
	optional     int // where the optional header begins
	table        int // where the section table begins
	directories  int
	headers      int // SizeOfHeaders
	sectionAlign uint32
	fileAlign    uint32
	loaded       uint32 // SizeOfImage
	sections     []Section
	end          int    // of the last section, in the file
	body         int    // where the certificates begin, or the file ends
	certificates []byte // the table of them, or nothing
}

func (p *image) u16(at int) uint16 { return binary.LittleEndian.Uint16(p.data[at:]) }
func (p *image) u32(at int) uint32 { return binary.LittleEndian.Uint32(p.data[at:]) }

// security is where the entry of the certificate table is.
func (p *image) security() int {
	return p.optional + optionalFixed + directorySecure*directorySize
}

// parse reads an image. Nothing is copied.
func parse(data []byte) (*image, error) {
	if len(data) > MaxImage {
		return nil, malformed("more than %d bytes", MaxImage)
	}
	if len(data) < dosHeader+coffHeader || string(data[:2]) != "MZ" {
		return nil, malformed("no DOS header")
	}
	p := &image{data: data}
	header := int64(p.u32(dosPEOffset))
	if header < dosHeader || header%4 != 0 || header > int64(len(data)-coffHeader) || string(data[header:header+4]) != "PE\x00\x00" {
		return nil, malformed("no PE header")
	}
	p.optional = int(header) + coffHeader
	if machine := p.u16(int(header) + 4); machine != machineX64 {
		return nil, malformed("machine is %#x, not x86-64", machine)
	}
	count, size := int(p.u16(int(header)+6)), int(p.u16(int(header)+20))
	p.table = p.optional + size
	if size < optionalFixed || p.table > len(data) || p.u16(p.optional) != optionalPE32 {
		return nil, malformed("no PE32+ optional header")
	}
	if subsystem := p.u16(p.optional + offSubsystem); subsystem != efiApplication {
		return nil, malformed("subsystem is %d, not an EFI application", subsystem)
	}
	directories := p.u32(p.optional + offDirectories)
	if directories <= directorySecure || directories > 16 || optionalFixed+int(directories)*directorySize > size {
		return nil, malformed("%d data directories", directories)
	}
	p.directories = int(directories)
	p.sectionAlign, p.fileAlign = p.u32(p.optional+offSectionAlignment), p.u32(p.optional+offFileAlignment)
	for _, align := range []uint32{p.sectionAlign, p.fileAlign} {
		if align == 0 || align > maxAlign || align&(align-1) != 0 {
			return nil, malformed("an alignment of %d", align)
		}
	}
	p.loaded = p.u32(p.optional + offSizeOfImage)
	headers := p.u32(p.optional + offSizeOfHeaders)
	if count == 0 || count > maxSections {
		return nil, malformed("%d sections", count)
	}
	if headers > maxHeaders || int(headers) > len(data) || p.table+count*sectionHeader > int(headers) {
		return nil, malformed("headers of %d bytes", headers)
	}
	p.headers = int(headers)
	if err := p.readSections(count); err != nil {
		return nil, err
	}
	return p, p.readCertificates()
}

// readSections wants the sections to follow the headers and each other without a gap: what firmware hashes is then the file.
func (p *image) readSections(count int) error {
	for i := range count {
		at := p.table + i*sectionHeader
		s := Section{Name: strings.TrimRight(string(p.data[at:at+sectionName]), "\x00"), Size: p.u32(at + 8), Address: p.u32(at + 12), offset: p.u32(at + 20)}
		size := p.u32(at + 16)
		if end := uint64(s.offset) + uint64(size); end > uint64(len(p.data)) {
			return malformed("section %q ends behind the file", s.Name)
		}
		if size > 0 {
			s.Data = p.data[s.offset : s.offset+size : s.offset+size]
		}
		p.sections = append(p.sections, s)
	}
	inFile := slices.DeleteFunc(slices.Clone(p.sections), func(s Section) bool { return len(s.Data) == 0 })
	slices.SortStableFunc(inFile, func(a, b Section) int { return cmp.Compare(a.offset, b.offset) })
	p.end = p.headers
	for _, s := range inFile {
		if int(s.offset) != p.end {
			return malformed("section %q begins at %d, the one before ends at %d", s.Name, s.offset, p.end)
		}
		p.end += len(s.Data)
	}
	loaded := slices.SortedStableFunc(slices.Values(p.sections), func(a, b Section) int { return cmp.Compare(a.Address, b.Address) })
	at := uint64(p.headers)
	for _, s := range loaded {
		if uint64(s.Address) < at {
			return malformed("section %q is loaded over another", s.Name)
		}
		at = uint64(s.Address) + uint64(s.Size) // of longer data no more is loaded
	}
	if at > uint64(p.loaded) {
		return malformed("the last section is loaded behind the image")
	}
	return nil
}

// readCertificates wants the certificate table, if there is one, to be the rest of the file.
func (p *image) readCertificates() error {
	offset, size := p.u32(p.security()), p.u32(p.security()+4)
	if offset == 0 && size == 0 {
		p.body = len(p.data)
		return nil
	}
	p.body = int(offset)
	if p.body < p.end || p.body%certificateAlign != 0 || uint64(offset)+uint64(size) != uint64(len(p.data)) {
		return malformed("the certificates are not the rest of the file")
	}
	p.certificates = p.data[p.body:]
	return nil
}

// Sections returns what an image holds.
func Sections(data []byte) ([]Section, error) {
	p, err := parse(data)
	if err != nil {
		return nil, err
	}
	return p.sections, nil
}
