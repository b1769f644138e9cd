package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
)

// Bounds of an archive that is read.
const (
	headerSize = 110
	maxFiles   = 100_000
	maxPath    = 4096
)

// Read reads one archive, strictly: what Write would not have written byte for byte is refused, so that two archives with the same files
// are the same bytes. The files' data lie in the archive, which must not change. What follows the archive is returned.
func Read(archive []byte) (files []File, rest []byte, err error) {
	in := &cutter{data: archive}
	seen := map[string]bool{}
	for range maxFiles {
		f, err := in.entry(uint32(len(files) + 1))
		if err != nil {
			return nil, nil, fmt.Errorf("reading a cpio archive at byte %d: %w", in.at, err)
		}
		if f.Path == trailer {
			if err := in.padding(blockSize); err != nil {
				return nil, nil, fmt.Errorf("reading a cpio archive's end: %w", err)
			}
			return files, archive[in.at:], nil
		}
		if seen[f.Path] {
			return nil, nil, fmt.Errorf("reading a cpio archive: %q is there twice", f.Path)
		}
		seen[f.Path] = true
		files = append(files, f)
	}
	return nil, nil, fmt.Errorf("reading a cpio archive: more than %d files", maxFiles)
}

// cutter takes an archive apart.
type cutter struct {
	data []byte
	at   int
}

func (c *cutter) take(n int) ([]byte, error) {
	if n < 0 || n > len(c.data)-c.at {
		return nil, errors.New("truncated")
	}
	c.at += n
	return c.data[c.at-n : c.at : c.at], nil
}

func (c *cutter) padding(to int) error {
	rest := c.at % to
	if rest == 0 {
		return nil
	}
	fill, err := c.take(to - rest)
	if err != nil {
		return err
	}
	if len(bytes.Trim(fill, "\x00")) > 0 {
		return errors.New("padding is not zero")
	}
	return nil
}

// Fields of a header, in their order after the magic.
const (
	inodeField = iota
	modeField
	uidField
	gidField
	linksField
	timeField
	sizeField
	devMajorField
	devMinorField
	majorField
	minorField
	nameField
	checkField
	fieldCount
)

func (c *cutter) entry(inode uint32) (File, error) {
	header, err := c.take(headerSize)
	if err != nil {
		return File{}, err
	}
	if string(header[:len(magic)]) != magic {
		return File{}, errors.New("no newc header")
	}
	var field [fieldCount]uint32
	for i := range field {
		text := string(header[len(magic)+8*i:][:8])
		n, err := strconv.ParseUint(text, 16, 32)
		if err != nil || fmt.Sprintf("%08x", n) != text {
			return File{}, fmt.Errorf("bad number %q", text)
		}
		field[i] = uint32(n)
	}
	if field[nameField] < 2 || field[nameField] > maxPath {
		return File{}, fmt.Errorf("a path of %d bytes", field[nameField])
	}
	name, err := c.take(int(field[nameField]))
	if err != nil {
		return File{}, err
	}
	if bytes.IndexByte(name, 0) != len(name)-1 {
		return File{}, errors.New("a path that does not end where it says")
	}
	f := File{Path: string(name[:len(name)-1]), Major: field[majorField], Minor: field[minorField]}
	if err := c.padding(4); err != nil {
		return File{}, err
	}
	if f.Data, err = c.take(int(field[sizeField])); err != nil {
		return File{}, err
	}
	if err := c.padding(4); err != nil {
		return File{}, err
	}
	if f.Path == trailer {
		inode = 0
	}
	for _, want := range []struct {
		field int
		value uint32
	}{{inodeField, inode}, {uidField, 0}, {gidField, 0}, {linksField, 1}, {timeField, 0}, {devMajorField, 0}, {devMinorField, 0}, {checkField, 0}} {
		if got := field[want.field]; got != want.value {
			return File{}, fmt.Errorf("%q: field %d is %d, want %d", f.Path, want.field, got, want.value)
		}
	}
	if f.Path == trailer {
		if len(f.Data) > 0 || field[modeField] != 0 || f.Major != 0 || f.Minor != 0 {
			return File{}, errors.New("a trailer that is a file")
		}
		return f, nil
	}
	if path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "." || f.Path == ".." || len(f.Path) > 2 && f.Path[:3] == "../" {
		return File{}, fmt.Errorf("bad path %q", f.Path)
	}
	return f, f.setMode(field[modeField])
}

// setMode is the other way round of what Write does with a mode.
func (f *File) setMode(mode uint32) error {
	const permissions = 0o777
	f.Mode = fs.FileMode(mode & permissions)
	device := false
	switch mode &^ permissions {
	case typeRegular:
	case typeDir:
		f.Mode |= fs.ModeDir
	case typeSymlink:
		f.Mode |= fs.ModeSymlink
	case typeChar:
		f.Mode |= fs.ModeDevice | fs.ModeCharDevice
		device = true
	default:
		return fmt.Errorf("%q: mode %#o", f.Path, mode)
	}
	if !device && (f.Major != 0 || f.Minor != 0) {
		return fmt.Errorf("%q: a device's number", f.Path)
	}
	if (device || f.Mode.IsDir()) && len(f.Data) > 0 {
		return fmt.Errorf("%q: data in what holds none", f.Path)
	}
	return nil
}
