package power

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/medium"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/uki"
)

// writeMedium writes what firmware boots from: the unified kernel image, and beside it this machine's ticket. The trust policy is inside
// the image, where Secure Boot or PCR 4 covers it.
func writeMedium(w io.Writer, boot Boot) error {
	image, err := boot.UKI.unified()
	if err != nil {
		return fmt.Errorf("reading the unified kernel image: %w", err)
	}
	return medium.USB(w, image, []uki.Credential{{Name: ticket.File, Data: boot.Ticket}, {Name: ticket.SignatureFile, Data: boot.TicketSig}})
}

// unified returns a unified kernel image, with a Secure Boot signature or without: what people signed for the release is the image
// without one.
func (f File) unified() (image []byte, err error) {
	src, err := os.OpenFile(f.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	info, err := src.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > medium.MaxLoader {
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", f.Path, medium.MaxLoader)
	}
	if image, err = io.ReadAll(io.LimitReader(src, medium.MaxLoader+1)); err != nil {
		return nil, err
	}
	plain := image
	if int64(len(image)) != f.Signed.Size {
		if plain, err = uki.Unsigned(image); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if err := f.Signed.Copy(io.Discard, bytes.NewReader(plain)); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return image, nil
}
