// Package offer is what a server that is not a machine of this host boots from: files that `fleetctl rotate` lays down for one life and
// `fleetctl serve` hands out on the boot port (rebuild/boot), to the addresses of that server and its BMC alone, until the life has
// joined or its ticket has ended. They hold the life's one-time ticket, so the directory is private, and the path is a secret.
package offer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/canonical"
	"mayfly/internal/durable"
)

// Specification constants.
const (
	Kind       = "mayfly-offer/1"
	PathOffers = "/offers/"  // + token + "/" + file: for a BMC or firmware that was told the whole address
	PathBoot   = "/netboot/" // + file: for firmware that knows only where to ask; the server's address says which life
)

// Files of an offer.
const (
	MediumFile = "boot.img" // USB image with the unified kernel image and the ticket
	KernelFile = "kernel"
	InitrdFile = "initrd" // with the ticket
	ScriptFile = "boot.ipxe"
)

// Files are all that is handed out.
var Files = []string{MediumFile, KernelFile, InitrdFile, ScriptFile}

// Implementation constants.
const (
	stateFile    = "offer.json"
	maxState     = 8 << 10
	tokenBytes   = 32
	maxOffers    = 10_000
	maxAddresses = 8
)

var (
	tokenForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	serverForm = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// Offer is one life's.
type Offer struct {
	Kind      string       `json:"kind"`
	Server    string       `json:"server"`
	Epoch     uint64       `json:"epoch"`
	Token     string       `json:"token"`
	Addresses []netip.Addr `json:"addresses"` // who may fetch it; the first is the server's own
	NotAfter  time.Time    `json:"not_after"`
}

// Path is where a file of the offer lies on the boot port.
func (o Offer) Path(file string) string { return PathOffers + o.Token + "/" + file }

// Dir is a directory of offers.
type Dir string

// File is what an offer is made of.
type File struct {
	Name  string
	Write func(io.Writer) error
}

// Put lays down a life's offer in place of any older one of that server.
func (d Dir) Put(ctx context.Context, o Offer, files func(Offer) []File) (_ Offer, err error) {
	o.Kind, o.Token, o.NotAfter = Kind, token(), o.NotAfter.UTC().Truncate(time.Second)
	if err := o.check(); err != nil {
		return Offer{}, fmt.Errorf("offering a boot to %q: %w", o.Server, err)
	}
	if err := d.Withdraw(o.Server); err != nil {
		return Offer{}, err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return Offer{}, fmt.Errorf("offering a boot to %q: %w", o.Server, err)
	}
	dir := filepath.Join(string(d), o.Server)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return Offer{}, fmt.Errorf("offering a boot to %q: %w", o.Server, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Withdraw(o.Server))
		}
	}()
	for _, f := range files(o) {
		if err := ctx.Err(); err != nil {
			return Offer{}, err
		}
		if err := write(filepath.Join(dir, f.Name), f.Write); err != nil {
			return Offer{}, fmt.Errorf("offering %s to %q: %w", f.Name, o.Server, err)
		}
	}
	data, err := canonical.Marshal(o)
	if err != nil {
		return Offer{}, err
	}
	// Last: without it nothing is handed out.
	return o, durable.WriteFile(filepath.Join(dir, stateFile), data, 0o600)
}

func write(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

// Withdraw takes a server's offer away. None is no error.
func (d Dir) Withdraw(server string) error {
	if !serverForm.MatchString(server) {
		return fmt.Errorf("withdrawing an offer: %q is no server's name", server)
	}
	dir := filepath.Join(string(d), server)
	// Its state first: half an offer is none.
	if err := os.Remove(filepath.Join(dir, stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("withdrawing the offer to %q: %w", server, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("withdrawing the offer to %q: %w", server, err)
	}
	return nil
}

// Of returns a server's offer that stands at now.
func (d Dir) Of(server string, now time.Time) (Offer, error) {
	if !serverForm.MatchString(server) {
		return Offer{}, fs.ErrNotExist
	}
	data, err := durable.ReadRegular(filepath.Join(string(d), server, stateFile), maxState)
	if err != nil {
		return Offer{}, err
	}
	o, err := parse(data)
	if err != nil {
		return Offer{}, fmt.Errorf("reading the offer to %q: %w", server, err)
	}
	if o.Server != server || !now.Before(o.NotAfter) {
		return Offer{}, fs.ErrNotExist
	}
	return o, nil
}

// Find returns the offer that somebody at this address may fetch: the one of this token, or where that is empty the one of the server
// with this address.
func (d Dir) Find(from netip.Addr, secret string, now time.Time) (Offer, error) {
	from = from.Unmap()
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return Offer{}, err
	}
	if len(entries) > maxOffers {
		return Offer{}, errors.New("too many offers")
	}
	for _, e := range entries {
		o, err := d.Of(e.Name(), now)
		if err != nil {
			continue // one that is being laid down, has ended, or is somebody's junk: not this one
		}
		if secret == "" && o.Addresses[0] == from || secret != "" && o.Token == secret && slices.Contains(o.Addresses, from) {
			return o, nil
		}
	}
	return Offer{}, fs.ErrNotExist
}

// Open opens a file of an offer.
func (d Dir) Open(o Offer, file string) (*os.File, error) {
	if !slices.Contains(Files, file) || !serverForm.MatchString(o.Server) {
		return nil, fs.ErrNotExist
	}
	return os.OpenFile(filepath.Join(string(d), o.Server, file), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

func parse(data []byte) (Offer, error) {
	var o Offer
	if err := canonical.Parse(data, maxState, &o); err != nil {
		return Offer{}, err
	}
	return o, o.check()
}

func (o Offer) check() error {
	switch {
	case o.Kind != Kind:
		return fmt.Errorf("kind %q", o.Kind)
	case !serverForm.MatchString(o.Server):
		return fmt.Errorf("%q is no server's name", o.Server)
	case o.Epoch == 0:
		return errors.New("no epoch")
	case !tokenForm.MatchString(o.Token):
		return errors.New("no token")
	case len(o.Addresses) == 0 || len(o.Addresses) > maxAddresses:
		return fmt.Errorf("%d addresses", len(o.Addresses))
	}
	for _, a := range o.Addresses {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("address %q", a)
		}
	}
	return nil
}

func token() string {
	b := make([]byte, tokenBytes)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Script is the iPXE script of an offer: firmware that gets no answer yet asks again, for ever.
func Script(cmdline string) (string, error) {
	if strings.ContainsFunc(cmdline, func(r rune) bool { return r < ' ' || r > '~' }) || strings.ContainsAny(cmdline, "${}") {
		return "", errors.New("a kernel command line that iPXE would read otherwise")
	}
	return "#!ipxe\n:again\nkernel " + KernelFile + " initrd=" + InitrdFile + " " + cmdline + " || goto wait\ninitrd " + InitrdFile +
		" || goto wait\nboot || goto wait\n:wait\nsleep 2\ngoto again\n", nil
}
