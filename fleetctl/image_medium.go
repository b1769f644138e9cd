package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/rebuild/medium"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/uki"
)

var imageMediumVerb = command.Verb{
	Name:    "image medium",
	Args:    "--dir DIR --release DIR|VERSION --out FILE [--form iso|usb] [--ticket FILE] [--unsigned]",
	Summary: "write a release's unified kernel image to an ISO or USB image that UEFI boots",
	Help: `Checks the release's signatures and dates, its files and what is inside the image, and writes FILE (0600), for a BMC's virtual medium, a USB stick or a virtual machine. It
holds mayfly.signed.efi; with --unsigned mayfly.efi, for servers that check by TPM and not by Secure Boot. The same input gives the same bytes.

--ticket names a server's ticket; its signature is FILE.sig. Both lie on the medium beside the image, unencrypted: who has the medium has the
ticket. A medium without one gets a server as far as asking for it.

Example:

  fleetctl image medium --dir lab --release 7 --form iso --out se-1.iso --ticket ticket.json`,
	Run: runImageMedium,
}

// maxTicketFile bounds what is read of a ticket or its signature.
const maxTicketFile = 64 << 10

func runImageMedium(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	name := fs.String("release", "", "`directory` of the release, or its version")
	out := fs.String("out", "", "`file` to make")
	form := fs.String("form", "iso", "iso or usb: `what` it is to be")
	ticketFile := fs.String("ticket", "", "`file` of a server's ticket")
	unsigned := fs.Bool("unsigned", false, "without a Secure Boot signature")
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
		return err
	}
	write := map[string]func(io.Writer, []byte, []uki.Credential) error{"iso": medium.ISO, "usb": medium.USB}[*form]
	if *name == "" || *out == "" || write == nil {
		return command.Usagef("--release and --out are needed, and --form is iso or usb")
	}
	d := state(*dir)
	t, trustPolicy, err := d.trust()
	if err != nil {
		return err
	}
	where := d.releaseDir(*name)
	s, _, err := releaseStatement(t, where, time.Now())
	if err != nil {
		return err
	}
	if err := errors.Join(checkParts(s, where), d.checkUKI(c, t, trustPolicy, s, where)); err != nil {
		return err
	}
	loader, err := chooseUKI(t, s, where, *unsigned)
	if err != nil {
		return err
	}
	files, err := ticketFiles(*ticketFile)
	if err != nil {
		return err
	}
	sum, size, err := writeMedium(*out, func(w io.Writer) error { return write(w, loader, files) })
	if err != nil {
		return err
	}
	return show(c.Stdout, *output, map[string]any{"file": *out, "form": *form, "bytes": size, "sha256": sum, "release": s.Version, "signed": !*unsigned, "ticket": len(files) > 0},
		[]string{"FILE", "BYTES", "SHA-256"}, [][]string{{*out, strconv.FormatInt(size, 10), sum}})
}

// chooseUKI reads the signed or the unsigned image of a release.
func chooseUKI(t *trust.Trust, s *release.Statement, dir string, unsigned bool) ([]byte, error) {
	data, err := readUKI(filepath.Join(dir, release.UKIFile), s)
	if err != nil || unsigned {
		return data, err
	}
	path := filepath.Join(dir, release.SignedUKIFile)
	if _, err := checkSignedUKI(t, data, path); errors.Is(err, iofs.ErrNotExist) {
		return nil, hint.New(fmt.Errorf("%s is not there", path), "`fleetctl image sign-efi` makes it; --unsigned takes the other")
	} else if err != nil {
		return nil, err
	}
	return readBounded(path, "", uki.MaxImage)
}

func ticketFiles(path string) ([]uki.Credential, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readBounded(path, "a ticket is what the controller hands to a power driver", maxTicketFile)
	if err != nil {
		return nil, err
	}
	sig, err := readBounded(signatures(path), "a ticket's signature lies beside it", maxTicketFile)
	if err != nil {
		return nil, err
	}
	return []uki.Credential{{Name: ticket.File, Data: data}, {Name: ticket.SignatureFile, Data: sig}}, nil
}

// writeMedium writes a file whole or not at all. It may hold a ticket, so nobody else reads it.
func writeMedium(path string, fill func(io.Writer) error) (sum string, size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	h := sha256.New()
	if err = errors.Join(fill(io.MultiWriter(f, h)), f.Sync()); err == nil {
		var info os.FileInfo
		if info, err = f.Stat(); err == nil {
			size = info.Size()
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", 0, fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, durable.SyncDir(filepath.Dir(path))
}
