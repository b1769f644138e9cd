package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// terminalTick is how often a terminal that is read without echo is asked whether to go on waiting.
const terminalTick = 100 * time.Millisecond

// Terminal asks on a terminal.
type Terminal struct {
	Path string // "/dev/tty": the one that the agent was started in
}

var _ PINWay = Terminal{}

// Name is what --pin calls it.
func (Terminal) Name() string { return "terminal" }

func (p Terminal) askPIN(ctx context.Context, q PINRequest) ([]byte, error) {
	return p.Ask(ctx, strings.Join(q.lines(), "\r\n")+"\r\nPIN")
}

// Ask takes a line that is not shown while it is typed. The caller wipes it.
func (p Terminal) Ask(ctx context.Context, text string) (line []byte, err error) {
	// The runtime must not wait for it: terminals cannot be polled everywhere.
	fd, err := unix.Open(p.Path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, unavailable("%w", &os.PathError{Op: "open", Path: p.Path, Err: err})
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	before, err := unix.IoctlGetTermios(fd, ioctlGetTermios)
	if err != nil {
		return nil, unavailable("%s is no terminal: %w", p.Path, err)
	}
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		return nil, unavailable("the agent is not in the foreground of %s", p.Path) // reading would stop it
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO | unix.ICANON
	quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 0, 1 // a read returns after a tenth of a second, with or without a byte
	if err := unix.IoctlSetTermios(fd, ioctlSetTermios, &quiet); err != nil {
		return nil, unavailable("%w", err)
	}
	defer func() {
		err = errors.Join(err, unix.IoctlSetTermios(fd, ioctlSetTermios, before))
	}()
	if err := writeTerminal(fd, "\r\n"+text+": "); err != nil {
		return nil, unavailable("%w", err)
	}
	line, err = typed(ctx, func(b []byte) (int, error) {
		n, err := unix.Read(fd, b)
		if n == 0 && err == nil { // time has passed, or nobody is there any more
			_, err = unix.IoctlGetTermios(fd, ioctlGetTermios)
		}
		return n, err
	})
	return line, errors.Join(err, writeTerminal(fd, "\r\n"))
}

func writeTerminal(fd int, text string) error {
	for len(text) > 0 {
		n, err := unix.Write(fd, []byte(text))
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		text = text[max(n, 0):]
	}
	return nil
}

// Keys that a terminal sends.
const (
	keyEOF       = 4 // Ctrl-D
	keyBackspace = 8
	keyKill      = 21 // Ctrl-U
	keyEscape    = 27
	keyDelete    = 127
)

// typed takes what a person types, up to Return. read returns nothing now and then.
func typed(ctx context.Context, read func([]byte) (int, error)) (pin []byte, err error) {
	buffer := make([]byte, 0, maxPIN)
	defer func() {
		if err != nil {
			clear(buffer[:cap(buffer)])
		}
	}()
	var key [1]byte
	defer clear(key[:])
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := read(key[:])
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			time.Sleep(terminalTick)
			continue
		case err != nil:
			return nil, unavailable("%w", err)
		case n == 0:
			continue
		}
		switch c := key[0]; c {
		case '\r', '\n':
			return buffer, nil
		case keyEOF, keyEscape:
			return nil, errPINCancelled
		case keyBackspace, keyDelete:
			if n := len(buffer); n > 0 {
				buffer[n-1] = 0
				buffer = buffer[:n-1]
			}
		case keyKill:
			clear(buffer)
			buffer = buffer[:0]
		default:
			if len(buffer) == maxPIN {
				return nil, fmt.Errorf("%w: more than %d bytes", errPINCancelled, maxPIN)
			}
			buffer = append(buffer, c)
		}
	}
}
