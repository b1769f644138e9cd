package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"mayfly/bastion/card"

	"mayfly/internal/command"
	"mayfly/internal/durable"
)

const doctorHelp = `It finds why a card does not answer, or is not as a fleet wants it, and names a mend for each: this program, pcscd, its socket and who it
lets in, readers, another program that keeps the card, PIV, firmware, PIN, PUK and management key (blocked, or still the factory's), and
each key. It changes nothing, and tries no PIN.

It ends with exit code 1 when something fails; warnings are no failures.

  bastion-agent doctor
  bastion-agent doctor -o json`

var doctorVerb = command.Verb{
	Name:    "doctor",
	Args:    "[--min-firmware VERSION] [-o json]",
	Summary: "find why a card does not answer, and name the mend",
	Help:    doctorHelp,
	Run:     doctor,
}

func doctor(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	floor := fs.String("min-firmware", minFirmware, "`version` that the fleet asks for")
	output := fs.String("o", "text", "output `form`: text or json")
	if err := c.Parse(fs); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return command.Usagef("doctor takes no words, got %q", fs.Arg(0))
	case *output != "text" && *output != "json":
		return command.Usagef("-o %s: want text or json", *output)
	}
	least, err := card.ParseVersion(*floor)
	if err != nil {
		return command.Usagef("--min-firmware: %v", err)
	}
	show := func(f card.Finding) { printFinding(c.Stdout, f) }
	if *output == "json" {
		show = func(card.Finding) {}
	}
	d := card.Doctor(ctx, reach(), machine(), least, time.Now(), show)
	if *output == "json" {
		err = encode(c.Stdout, d)
	} else {
		_, err = fmt.Fprintf(c.Stdout, findingForm, "", "", fmt.Sprintf("failing: %d, warnings: %d", d.Failures, d.Warnings))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && d.Failures > 0 {
		err = fmt.Errorf("failing: %d of %d checks", d.Failures, len(d.Findings))
	}
	return err
}

// findingForm is a line of the report, with room for the longest check: a line is shown when there is one, and not at the end of all.
const findingForm = "%-4s  %-14s  %s\n"

func printFinding(out io.Writer, f card.Finding) {
	fmt.Fprintf(out, findingForm, f.Health, f.Check, f.What)
	if f.Hint != "" {
		fmt.Fprintf(out, findingForm, "", "", "hint: "+f.Hint)
	}
}

// Where pcscd is, and its socket (pcsc-lite's own default; PCSCLITE_CSOCK_NAME names another).
const (
	pcscdSocket    = "/run/pcscd/pcscd.comm"
	socketPatience = 5 * time.Second
	maxProcesses   = 1 << 16
	maxComm        = 64
)

var pcscdPrograms = []string{"/usr/sbin/pcscd", "/usr/local/sbin/pcscd", "/sbin/pcscd"}

// keepers are programs that are known to keep cards, by the first 15 bytes of their names.
var keepers = []string{"scdaemon", "gpg-agent", "yubikey-agent", "ykman", "pivy-agent", "opensc-notify", "authenticator", "ssh-pkcs11-help", card.OurName}

// machine is this one.
func machine() card.Machine {
	return card.Machine{System: runtime.GOOS, Service: pcscdProgram, Socket: dialPCSCD, Holders: func() []string { return running("/proc", keepers) }}
}

func pcscdProgram() (string, bool) {
	for _, path := range pcscdPrograms {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}

func dialPCSCD(ctx context.Context) (string, error) {
	path := os.Getenv("PCSCLITE_CSOCK_NAME")
	if path == "" {
		path = pcscdSocket
	}
	ctx, cancel := context.WithTimeout(ctx, socketPatience)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return path, conn.Close()
	case errors.Is(err, syscall.ENOENT):
		return path, errors.Join(card.ErrNoSocket, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return path, errors.Join(card.ErrSocketDead, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return path, errors.Join(card.ErrSocketDenied, err)
	case errors.Is(err, syscall.EAGAIN):
		return path, errors.Join(card.ErrSocketFull, err)
	}
	return path, err
}

// running are those of the names that processes have.
func running(proc string, names []string) []string {
	paths, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm"))
	if err != nil || len(paths) > maxProcesses {
		return nil
	}
	var found []string
	for _, path := range paths {
		if filepath.Base(filepath.Dir(path)) == strconv.Itoa(os.Getpid()) {
			continue
		}
		data, err := durable.ReadFile(path, maxComm)
		if err != nil {
			continue
		}
		name := string(data[:max(len(data)-1, 0)])
		if slices.Contains(names, name) && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}
