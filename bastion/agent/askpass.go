package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Askpass asks with a program as ssh uses them: the prompt is its argument, the PIN the first line of its output.
type Askpass struct {
	Program string // SSH_ASKPASS; "": there is none
}

var _ PINWay = Askpass{}

// Name is what --pin calls it.
func (Askpass) Name() string { return "askpass" }

func (p Askpass) askPIN(ctx context.Context, q PINRequest) ([]byte, error) {
	if p.Program == "" {
		return nil, unavailable("SSH_ASKPASS names no program")
	}
	cmd := exec.CommandContext(ctx, p.Program, strings.Join(q.lines(), "\n")+"\nPIN: ")
	gentle(cmd)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, unavailable("%w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, unavailable("%w", err)
	}
	pin, readErr := readPIN(stdout)
	if readErr != nil {
		stdout.Close() // it may be writing still
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case readErr != nil:
		return nil, unavailable("%w", readErr)
	case errors.As(err, &exit):
		clear(pin)
		return nil, fmt.Errorf("%w: %s ended with %d", errPINCancelled, shown(p.Program), exit.ExitCode())
	case err != nil:
		clear(pin)
		return nil, unavailable("%w", err)
	}
	return pin, nil
}

// readPIN reads a line to its end and the output to its own; what it returns is wiped by the caller, and nothing else holds it.
func readPIN(r io.Reader) ([]byte, error) {
	buffer := make([]byte, maxPIN+2)
	n, err := io.ReadFull(r, buffer)
	if err == nil {
		clear(buffer)
		return nil, fmt.Errorf("a PIN of more than %d bytes", maxPIN)
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		clear(buffer)
		return nil, err
	}
	line := buffer[:n]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		clear(line[i:])
		line = line[:i]
	}
	return bytes.TrimSuffix(line, []byte("\r")), nil
}
