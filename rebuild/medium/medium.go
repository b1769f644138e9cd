package medium

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"mayfly/rebuild/uki"
)

// Specification constants: where firmware and systemd-stub look.
const (
	// Loader is the path of what firmware boots from a removable medium.
	Loader = "EFI/BOOT/BOOTX64.EFI"
	beside = Loader + ".extra.d/"
)

// Implementation limits.
const (
	MaxLoader      = 512 << 20
	maxCredentials = 16
	maxCredential  = 1 << 20
	maxName        = 64
)

// tree is what is on a medium, by path with slashes; directories come before what is in them.
func tree(image []byte, files []uki.Credential) ([]file, error) {
	if len(image) == 0 || len(image) > MaxLoader {
		return nil, fmt.Errorf("an image of %d bytes, not 1 to %d", len(image), MaxLoader)
	}
	if len(files) > maxCredentials {
		return nil, fmt.Errorf("%d credentials, more than %d", len(files), maxCredentials)
	}
	all := []file{{path: "EFI", dir: true}, {path: "EFI/BOOT", dir: true}, {path: Loader, data: image}}
	if len(files) > 0 {
		all = append(all, file{path: strings.TrimSuffix(beside, "/"), dir: true})
	}
	seen := map[string]bool{}
	for _, f := range files {
		folded := strings.ToLower(f.Name) // FAT knows no difference
		switch {
		case f.Name == "" || len(f.Name) > maxName || strings.Trim(f.Name, ".") != f.Name || strings.ContainsFunc(f.Name, notInName):
			return nil, fmt.Errorf("credential %q is no name", f.Name)
		case seen[folded]:
			return nil, fmt.Errorf("credential %q comes twice", f.Name)
		case len(f.Data) > maxCredential:
			return nil, fmt.Errorf("credential %q has %d bytes, more than %d", f.Name, len(f.Data), maxCredential)
		}
		seen[folded] = true
		all = append(all, file{path: beside + f.Name + uki.CredentialSuffix, data: f.Data})
	}
	return all, nil
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

// identity is the source of every number that is to differ between media: a hash of what is on it.
func identity(files []file) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range files {
		sum := sha256.Sum256(f.data)
		fmt.Fprintf(h, "%q %t %x\n", f.path, f.dir, sum)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// USB writes a disk image: GPT, and one EFI system partition.
func USB(w io.Writer, image []byte, files []uki.Credential) error {
	return wrap("writing a USB image", write(w, image, files, writeGPT))
}

// ISO writes a CD image: ISO 9660 with one file, the EFI system partition, which El Torito names to UEFI firmware.
func ISO(w io.Writer, image []byte, files []uki.Credential) error {
	return wrap("writing an ISO image", write(w, image, files, writeISO))
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func write(w io.Writer, image []byte, files []uki.Credential, around func(*output, *fat, [sha256.Size]byte)) error {
	all, err := tree(image, files)
	if err != nil {
		return err
	}
	id := identity(all)
	f, err := layFAT(all, id)
	if err != nil {
		return err
	}
	out := &output{w: w}
	around(out, f, id)
	return out.err
}

// output remembers how much was written and the first error.
type output struct {
	w   io.Writer
	n   int64
	err error
}

func (o *output) write(p []byte) {
	if o.err != nil {
		return
	}
	n, err := o.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	o.n, o.err = o.n+int64(n), err
}

var zeros [64 << 10]byte

// to fills with zeros up to an offset.
func (o *output) to(offset int64) {
	if o.err == nil && offset < o.n {
		o.err = errors.New("a part is larger than its place")
	}
	for o.err == nil && o.n < offset {
		o.write(zeros[:min(int64(len(zeros)), offset-o.n)])
	}
}

// block pads to a multiple.
func block(p []byte, size int) []byte {
	if rest := len(p) % size; rest != 0 {
		return append(bytes.Clone(p), zeros[:size-rest]...)
	}
	return p
}
