// Package cpio writes newc archives, the format of the kernel's initramfs. Its output depends on nothing but what it is given:
// inode numbers count up, times are zero, owners are root. It reads what it writes, and nothing else.
//
// Reference: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources.
package cpio

import (
	"fmt"
	"io"
	"io/fs"
)

// Specification constants.
const (
	magic   = "070701"
	trailer = "TRAILER!!!"

	typeDir     = 0o040000
	typeRegular = 0o100000
	typeSymlink = 0o120000
	typeChar    = 0o020000
)

// blockSize is what an archive is padded to, so that another can follow it.
const blockSize = 512

// File is one entry. Mode's type decides what the other fields mean: Data is a file's content or a link's target, Major and
// Minor are a character device's numbers.
type File struct {
	Path         string // relative, without a leading slash
	Mode         fs.FileMode
	Data         []byte
	Major, Minor uint32
}

// Write writes one archive of files in the order given, and its trailer. Directories have to come before what they hold.
func Write(w io.Writer, files []File) error {
	out := &counter{w: w}
	for i, f := range files {
		mode := uint32(f.Mode.Perm())
		switch f.Mode.Type() {
		case fs.ModeDir:
			mode |= typeDir
		case 0:
			mode |= typeRegular
		case fs.ModeSymlink:
			mode |= typeSymlink
		case fs.ModeDevice | fs.ModeCharDevice:
			mode |= typeChar
		default:
			return fmt.Errorf("writing %q to a cpio archive: file type %v is not supported", f.Path, f.Mode.Type())
		}
		out.entry(uint32(i+1), mode, f.Path, f.Data, f.Major, f.Minor)
	}
	out.entry(0, 0, trailer, nil, 0, 0)
	out.pad(blockSize)
	if out.err != nil {
		return fmt.Errorf("writing a cpio archive: %w", out.err)
	}
	return nil
}

// counter remembers how much was written and the first error.
type counter struct {
	w   io.Writer
	n   int64
	err error
}

func (c *counter) entry(inode, mode uint32, path string, data []byte, major, minor uint32) {
	const uid, gid, links, mtime, devMajor, devMinor, check = 0, 0, 1, 0, 0, 0, 0
	c.write(fmt.Appendf(nil, "%s%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", magic, inode, mode, uid, gid, links, mtime,
		len(data), devMajor, devMinor, major, minor, len(path)+1, check, path))
	c.pad(4)
	c.write(data)
	c.pad(4)
}

func (c *counter) pad(to int64) {
	if rest := c.n % to; rest != 0 {
		c.write(make([]byte, to-rest))
	}
}

func (c *counter) write(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.n, c.err = c.n+int64(n), err
}
