// Package swtpm is a TPM of its own for a test: Debian's swtpm as a process, behind a unix socket, with the power button that a machine has.
// Seeds stay over Restart, registers do not, as in hardware.
package swtpm

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"mayfly/rebuild/attest/measure"
)

// startLimit is how long swtpm may take to listen.
const startLimit = time.Minute

// TPM is one swtpm with its state.
type TPM struct {
	t      testing.TB
	dir    string
	socket string
	cmd    *exec.Cmd
}

// Start starts a new TPM, which ends with the test.
func Start(t testing.TB) *TPM {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skip("needs swtpm (package swtpm)")
	}
	// Not t.TempDir: its names are too long for a socket.
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		t.Fatal(err)
	}
	s := &TPM{t: t, dir: dir}
	t.Cleanup(func() {
		s.stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.start()
	return s
}

func (s *TPM) start() {
	s.t.Helper()
	s.socket = filepath.Join(s.dir, "tpm")
	s.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+s.dir, "--flags", "not-need-init,startup-clear",
		"--server", "type=unixio,path="+s.socket, "--ctrl", "type=unixio,path="+filepath.Join(s.dir, "ctrl"))
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *TPM) stop() {
	if s.cmd == nil {
		return
	}
	// A killed TPM is one whose power was cut.
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
	_ = s.cmd.Wait() // says that it was killed
	s.cmd = nil
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Error(err)
	}
}

// Restart takes the power away and gives it back.
func (s *TPM) Restart() {
	s.t.Helper()
	s.stop()
	s.start()
}

// Dial connects. swtpm takes one connection at a time.
func (s *TPM) Dial() io.ReadWriteCloser {
	s.t.Helper()
	for end := time.Now().Add(startLimit); ; {
		c, err := net.Dial("unix", s.socket)
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			s.t.Fatalf("swtpm does not listen: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Extend measures into a register, as firmware or the stub does.
func (s *TPM) Extend(pcr int, digests ...[32]byte) {
	s.t.Helper()
	c := s.Dial()
	for _, d := range digests {
		if err := measure.ExtendOn(c, uint32(pcr), d); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		s.t.Fatal(err)
	}
}
