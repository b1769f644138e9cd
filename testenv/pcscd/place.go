package pcscd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"mayfly/internal/hint"
	"mayfly/testenv/debian"
)

// Needs are the programs that the daemon consists of.
var Needs = []debian.Need{
	{Name: "pcscd", Package: "pcscd"},
	{Name: driver, Package: "vsmartcard-vpcd"},
	{Name: "mount", Package: "mount"},
}

// Facts of Debian 12's pcsc-lite and vpcd.
const (
	driver      = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
	firstPort   = 35963 // vpcd's own choice
	slots       = 2     // of each copy of the driver
	maxReaders  = 16    // PCSCLITE_MAX_READERS_CONTEXTS
	maxUnixPath = 107   // sun_path without its ending zero; libpcsclite cuts longer names
)

// ReaderName begins the name of each reader. yubico-piv-tool looks for "yubikey" in it, ykcs11 for "Yubico" at its beginning.
const ReaderName = "Yubico YubiKey CCID (virtual, software)"

// socketVariable tells libpcsclite where the daemon's socket is.
const socketVariable = "PCSCLITE_CSOCK_NAME"

// script gives the daemon its own view of the machine and becomes it.
const script = `set -e
mount -t tmpfs -o mode=755 mayfly /run
mkdir /run/pcscd
mount --bind "$1/run" /run/pcscd
mount --bind "$1/usb" /usr/lib/pcsc/drivers
exec pcscd --foreground --info --config "$1/readers"
`

// Place is where a daemon keeps its files, and how it is reached.
type Place struct {
	Dir     string // absolute and short; made if it is not there; not below /run
	Readers int    // that there are, at least 1
}

// Socket is the daemon's.
func (p Place) Socket() string { return filepath.Join(p.Dir, "run", "pcscd.comm") }

// Port is where the card of a reader connects to, on 127.0.0.1 in the daemon's network namespace. Readers are counted from 0.
func (p Place) Port(reader int) int { return firstPort + reader }

// Reader is the name that programs see.
func (p Place) Reader(reader int) string {
	return fmt.Sprintf("%s 00 %02X", friendlyName(reader/slots), reader%slots) // two hexadecimal numbers are the daemon's
}

// friendlyName of a copy of the driver is its own: the daemon keeps readers of one name apart only if they have one driver.
func friendlyName(library int) string { return fmt.Sprintf("%s %d", ReaderName, library) }

// Environ adds the daemon's socket to an environment; nil is this process's own.
func (p Place) Environ(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	env = slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, socketVariable+"=") })
	return append(env, socketVariable+"="+p.Socket())
}

// Command is exec.CommandContext for a client of the daemon.
func (p Place) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = p.Environ(nil)
	return cmd
}

// Prepare writes the daemon's files and returns the command that runs it in the foreground. Whoever starts it chooses the network
// namespace: it must be one in which it does no harm that anybody there can plug in a card.
func (p Place) Prepare() (*exec.Cmd, error) {
	switch {
	case !filepath.IsAbs(p.Dir) || strings.HasPrefix(filepath.Clean(p.Dir)+"/", "/run/"):
		return nil, fmt.Errorf("preparing pcscd: directory %q: want an absolute path that is not below /run", p.Dir)
	case len(p.Socket()) > maxUnixPath:
		return nil, hint.New(fmt.Errorf("preparing pcscd: its socket %s has a path of %d bytes, and %d is all there is", p.Socket(), len(p.Socket()), maxUnixPath),
			"take a directory with a shorter path")
	case p.Readers < 1 || p.Readers > maxReaders:
		return nil, fmt.Errorf("preparing pcscd: %d readers: want 1 to %d", p.Readers, maxReaders)
	}
	if missing := debian.Missing(Needs); len(missing) > 0 {
		return nil, hint.New(fmt.Errorf("preparing pcscd: not found: %s", debian.Describe(missing)), "%s", debian.Line(missing))
	}
	if err := p.lay(); err != nil {
		return nil, fmt.Errorf("preparing pcscd: %w", err)
	}
	cmd := exec.Command("sh", "-c", script, "pcscd", p.Dir)
	cmd.Env = []string{"PATH=" + debian.Path(os.Getenv("PATH")), "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	return cmd, nil
}

func (p Place) lay() error {
	// Of an earlier daemon, which a killed run left or which was ended: pcscd refuses to start beside its own files.
	if err := errors.Join(os.RemoveAll(filepath.Join(p.Dir, "run")), os.RemoveAll(filepath.Join(p.Dir, "readers"))); err != nil {
		return err
	}
	for _, name := range []string{"run", "usb", "readers", "drivers"} {
		if err := os.MkdirAll(filepath.Join(p.Dir, name), 0o755); err != nil {
			return err
		}
	}
	for first := 0; first < p.Readers; first += slots {
		// The driver keeps its slots in global variables: a second entry needs a second library, which is a file of its own.
		library := filepath.Join(p.Dir, "drivers", fmt.Sprintf("libifdvpcd-%02d.so", first/slots))
		if err := copyFile(library, driver); err != nil {
			return err
		}
		// /dev/null stands for "listen": reader.conf(5) has no word for it.
		text := fmt.Sprintf("FRIENDLYNAME \"%s\"\nDEVICENAME /dev/null:0x%04X\nLIBPATH %s\nCHANNELID 0x%04X\n", friendlyName(first/slots), p.Port(first), library, p.Port(first))
		if err := os.WriteFile(filepath.Join(p.Dir, "readers", fmt.Sprintf("%02d", first/slots)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
