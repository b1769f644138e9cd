package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// A server of a test fleet may be a container instead of a machine (package power, container.go): PID 1 of a namespace on somebody's host.
// Its driver hands over the papers in a directory, since there is no stub; modules, kernel settings outside its own network, control
// groups, disks and power are the host's, and are left alone. Nothing of this is proved to anybody: such a life is unverified.
const (
	containerArgument = "container"
	containerPapers   = "/papers"
)

// inContainer says whether the driver of containers started this program.
func inContainer(args []string) bool { return len(args) == 2 && args[1] == containerArgument }

// takePapers moves what the driver handed over to where the stub would have left it, and removes it from the host.
func takePapers(from, to string) error {
	for _, name := range []string{ticket.TrustFile, ticket.File, ticket.SignatureFile, release.StatementFile} {
		data, err := readPaper(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("taking over the papers: %w", err)
		}
		if len(data) > trust.MaxSize {
			return fmt.Errorf("taking over the papers: %s is longer than %d bytes", name, trust.MaxSize)
		}
		if err := durable.WriteFile(filepath.Join(to, name), data, 0o600); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(from, name)); err != nil {
			return fmt.Errorf("taking over the papers: %w", err)
		}
	}
	return nil
}

// ownNetwork are the settings that a network namespace has of its own.
func ownNetwork(list []setting) []setting {
	var own []setting
	for _, s := range list {
		if strings.HasPrefix(s.name, "net/") && !strings.HasPrefix(s.name, "net/core/") {
			own = append(own, s)
		}
	}
	return own
}

// containerID is this life's in place of the kernel's boot id, which is the host's.
func containerID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// exit ends a container: its power is the host's.
func exit() { unix.Exit(0) }
