package image

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Specification constants, deb(5) and the ar header.
const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
	dataMember   = "data.tar"
)

// Implementation constants: bounds of what a package may hold.
const (
	maxPackage = 512 << 20 // compressed
	maxMembers = 16
	maxEntries = 200_000
	maxFile    = 256 << 20
	maxPayload = 2 << 30
)

// readDeb reads the data of a Debian package. Entries for which keep is false are passed over. Paths are absolute, clean and
// usr-merged. No maintainer script is looked at.
func readDeb(file string, keep func(path string) bool) (tree, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := tree{}
	err = arMembers(f, func(name string, _ time.Time, body io.Reader) error {
		if !strings.HasPrefix(name, dataMember) {
			return nil
		}
		r, done, err := decompress(strings.TrimPrefix(name, dataMember), body)
		if err != nil {
			return err
		}
		defer done()
		return readTar(r, out, keep)
	})
	if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", path.Base(file), err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("unpacking %s: no %s member, or an empty one", path.Base(file), dataMember)
	}
	return out, nil
}

// debTime is when a package was made: the time in its first member's header, which Debian derives from the changelog.
func debTime(file string) (time.Time, error) {
	f, err := os.Open(file)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	var made time.Time
	stop := errors.New("enough")
	err = arMembers(f, func(_ string, at time.Time, _ io.Reader) error {
		made = at
		return stop
	})
	if err != nil && !errors.Is(err, stop) {
		return time.Time{}, fmt.Errorf("reading the time of %s: %w", path.Base(file), err)
	}
	return made, nil
}

// arMembers calls each for every member of an ar archive.
func arMembers(r io.Reader, each func(name string, at time.Time, body io.Reader) error) error {
	in := bufio.NewReaderSize(io.LimitReader(r, maxPackage), 1<<16)
	var head [arHeaderSize]byte
	if _, err := io.ReadFull(in, head[:len(arMagic)]); err != nil || string(head[:len(arMagic)]) != arMagic {
		return errors.New("not an ar archive")
	}
	for range maxMembers {
		if _, err := io.ReadFull(in, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("ar header: %w", err)
		}
		if string(head[58:]) != "`\n" {
			return errors.New("ar header: bad end mark")
		}
		name := strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/")
		at, err := strconv.ParseInt(strings.TrimRight(string(head[16:28]), " "), 10, 64)
		if err != nil {
			return fmt.Errorf("ar header of %q: time: %w", name, err)
		}
		size, err := strconv.ParseInt(strings.TrimRight(string(head[48:58]), " "), 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("ar header of %q: bad size", name)
		}
		body := &io.LimitedReader{R: in, N: size}
		if err := each(name, time.Unix(at, 0).UTC(), body); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return fmt.Errorf("ar member %q: %w", name, err)
		}
		if body.N != 0 {
			return fmt.Errorf("ar member %q: truncated", name)
		}
		if size%2 == 1 {
			if _, err := in.Discard(1); err != nil && err != io.EOF {
				return fmt.Errorf("ar member %q: %w", name, err)
			}
		}
	}
	return fmt.Errorf("more than %d ar members", maxMembers)
}

func decompress(suffix string, r io.Reader) (io.Reader, func(), error) {
	switch suffix {
	case "":
		return r, func() {}, nil
	case ".xz":
		x, err := xz.NewReader(bufio.NewReaderSize(r, 1<<16))
		return x, func() {}, err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case ".gz":
		g, err := gzip.NewReader(r)
		return g, func() {}, err
	}
	return nil, nil, fmt.Errorf("compression %q is not supported", suffix)
}

func readTar(r io.Reader, out tree, keep func(string) bool) error {
	in := tar.NewReader(&limited{r: r, left: maxPayload})
	for range maxEntries {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		name, err := cleanPath(h.Name)
		if err != nil {
			return err
		}
		name = mergeUsr(name)
		if !keep(name) {
			continue
		}
		perm := fs.FileMode(h.Mode).Perm()
		switch h.Typeflag {
		case tar.TypeDir:
			out[name] = &node{mode: fs.ModeDir | perm}
		case tar.TypeReg:
			if h.Size > maxFile {
				return fmt.Errorf("tar: %s has %d bytes, more than %d", name, h.Size, int64(maxFile))
			}
			data := make([]byte, h.Size)
			if _, err := io.ReadFull(in, data); err != nil {
				return fmt.Errorf("tar: %s: %w", name, err)
			}
			out[name] = &node{mode: perm, data: data}
		case tar.TypeSymlink:
			out[name] = &node{mode: fs.ModeSymlink | 0o777, link: h.Linkname}
		case tar.TypeLink:
			target, err := cleanPath(h.Linkname)
			if err != nil {
				return err
			}
			to := out[mergeUsr(target)]
			if to == nil || !to.mode.IsRegular() {
				return fmt.Errorf("tar: %s is a hard link to %s, which was not kept", name, target)
			}
			out[name] = &node{mode: to.mode, data: to.data}
		default:
			return fmt.Errorf("tar: %s has type %q, which an image may not hold", name, h.Typeflag)
		}
	}
	return fmt.Errorf("tar: more than %d entries", maxEntries)
}

// cleanPath makes a tar entry's name absolute and refuses one that leads elsewhere.
func cleanPath(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || strings.ContainsRune(part, 0) {
			return "", fmt.Errorf("tar: bad path %q", name)
		}
	}
	return path.Clean("/" + name), nil
}

// mergeUsr is what Debian's usrmerge package does to a path: /bin, /sbin, /lib and /lib64 live below /usr.
func mergeUsr(name string) string {
	for _, dir := range mergedDirs {
		if strings.HasPrefix(name, "/"+dir+"/") {
			return "/usr" + name
		}
	}
	return name
}

var mergedDirs = []string{"bin", "sbin", "lib", "lib64"}

// limited fails, rather than ends, when a stream is longer than allowed.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n, fmt.Errorf("more than %d bytes", int64(maxPayload))
	}
	return n, err
}
