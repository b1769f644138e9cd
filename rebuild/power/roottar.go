package power

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"

	"mayfly/rebuild/erofs"
)

// writeTar writes a root as a tar archive, with what the root says of each file: mode and time; all of it is root's. It is what container engines import.
func writeTar(out io.Writer, root []byte) error {
	image, err := erofs.Read(root)
	if err != nil {
		return fmt.Errorf("reading the root: %w", err)
	}
	w := tar.NewWriter(out)
	for _, f := range image.Files {
		if f.Path == "." {
			continue
		}
		h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: image.Epoch, Format: tar.FormatPAX}
		if f.Mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		switch f.Mode.Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case fs.ModeSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, string(f.Data)
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Data))
		default:
			return fmt.Errorf("%s: a root holds no %s", f.Path, f.Mode.Type())
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(f.Data); err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
		}
	}
	return w.Close()
}
