package power

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/cpio"
	"mayfly/rebuild/ticket"
)

// initrdAlign is what the kernel wants the start of a further archive aligned to.
const initrdAlign = 4

// initrd writes the stub's initramfs, then an archive with what is this machine's own.
func initrd(w io.Writer, boot Boot) error {
	out := new(bytes.Buffer)
	if err := boot.Stub.copy(out); err != nil {
		return fmt.Errorf("reading the stub: %w", err)
	}
	if rest := out.Len() % initrdAlign; rest != 0 {
		out.Write(make([]byte, initrdAlign-rest))
	}
	err := cpio.Write(out, []cpio.File{
		{Path: ticket.TrustFile, Mode: 0o644, Data: boot.Trust},
		{Path: ticket.File, Mode: 0o600, Data: boot.Ticket},
		{Path: ticket.SignatureFile, Mode: 0o600, Data: boot.TicketSig},
	})
	if err != nil {
		return err
	}
	_, err = w.Write(out.Bytes())
	return err
}

// writeInitrd writes it to a file that nobody else may read.
func writeInitrd(path string, boot Boot) error {
	f, err := create(path)
	if err != nil {
		return err
	}
	return errors.Join(initrd(f, boot), f.Close())
}

// writeKernel writes the machine's own copy of the kernel.
func writeKernel(path string, boot Boot) error {
	f, err := create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(boot.Kernel.copy(f), f.Close()); err != nil {
		return fmt.Errorf("reading the kernel: %w", err)
	}
	return nil
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(0o600))
}

// copy writes the file's bytes to w, and fails unless they are the signed ones.
func (f File) copy(w io.Writer) error {
	src, err := os.OpenFile(f.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	info, err := src.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", f.Path)
	default:
		if err = f.Signed.Copy(w, src); err != nil {
			err = fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return errors.Join(err, src.Close())
}
