package power

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"mayfly/rebuild/cpio"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// initrdAlign is what the kernel wants the start of a further archive aligned to.
const initrdAlign = 4

// writeInitrd writes the stub's initramfs, then an archive with what is this machine's own. Nobody else may read it.
func writeInitrd(path string, boot Boot) error {
	info, err := os.Stat(boot.Stub)
	if err != nil {
		return fmt.Errorf("reading the stub: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > release.MaxPart {
		return fmt.Errorf("reading the stub: %s is not a file of at most %d bytes", boot.Stub, int64(release.MaxPart))
	}
	stub, err := os.ReadFile(boot.Stub)
	if err != nil {
		return fmt.Errorf("reading the stub: %w", err)
	}
	out := bytes.NewBuffer(stub)
	if rest := len(stub) % initrdAlign; rest != 0 {
		out.Write(make([]byte, initrdAlign-rest))
	}
	err = cpio.Write(out, []cpio.File{
		{Path: ticket.TrustFile, Mode: 0o644, Data: boot.Trust},
		{Path: ticket.File, Mode: 0o600, Data: boot.Ticket},
		{Path: ticket.SignatureFile, Mode: 0o600, Data: boot.TicketSig},
	})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(0o600))
	if err != nil {
		return err
	}
	_, err = f.Write(out.Bytes())
	return errors.Join(err, f.Close())
}
