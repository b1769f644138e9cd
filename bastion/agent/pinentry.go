package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// programWait is how long a program that asked for a PIN may take to go after it was told to.
const programWait = 2 * time.Second

// Pinentry asks with GnuPG's pinentry, or what speaks its protocol. It is not told that a password store may keep the PIN.
type Pinentry struct {
	Program string // name or path; "pinentry" is the system's choice
	TTY     string // terminal for those that use one; GPG_TTY if empty
}

var _ PINWay = Pinentry{}

// Name is what --pin calls it.
func (Pinentry) Name() string { return "pinentry" }

func (p Pinentry) askPIN(ctx context.Context, q PINRequest) (pin []byte, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Program)
	gentle(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, unavailable("%w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, unavailable("%w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, unavailable("%w", err)
	}
	defer func() {
		stdin.Close()
		stdout.Close()
		defer time.AfterFunc(programWait, cancel).Stop() // one that does not go by itself
		cmd.Wait()                                       // what it exits with says nothing that it has not said
	}()
	return p.converse(ctx, stdout, stdin, q)
}

// gentle has a program told to end before it is killed, so that it can give the terminal back.
func gentle(cmd *exec.Cmd) {
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = programWait
}

// converse speaks with a pinentry that has just started.
func (p Pinentry) converse(ctx context.Context, r io.Reader, w io.Writer, q PINRequest) ([]byte, error) {
	a := &assuan{r: r, w: w}
	defer a.wipe()
	if _, err := a.answer(0); err != nil {
		return nil, unavailable("greeting: %w", err)
	}
	tty := p.TTY
	if tty == "" {
		tty = os.Getenv("GPG_TTY")
	}
	for _, o := range [][2]string{{"ttyname", tty}, {"ttytype", os.Getenv("TERM")}, {"lc-ctype", os.Getenv("LC_CTYPE")}} {
		if o[1] == "" {
			continue
		}
		value, fits := escapeAssuan(o[1], assuanLine/2)
		if !fits {
			return nil, unavailable("%s is too long for pinentry", o[0])
		}
		if _, err := a.do(0, "OPTION", o[0]+"="+value); err != nil && !refused(err) {
			return nil, unavailable("%w", err)
		}
	}
	commands := [][2]string{
		{"SETTITLE", "mayfly bastion-agent"},
		{"SETPROMPT", "PIN:"},
		{"SETDESC", strings.Join(PINRequest{Card: q.Card, Purpose: q.Purpose, Tries: q.Tries}.lines(), "\n")},
	}
	if q.Again {
		commands = append(commands, [2]string{"SETERROR", "That PIN was wrong."})
	}
	if deadline, ok := ctx.Deadline(); ok {
		commands = append(commands, [2]string{"SETTIMEOUT", strconv.Itoa(max(1, int(time.Until(deadline).Seconds())))})
	}
	for _, c := range commands {
		argument, fits := escapeAssuan(c[1], assuanLine-50)
		if !fits {
			return nil, unavailable("what the PIN is for is too long for pinentry, and is not cut")
		}
		if _, err := a.do(0, c[0], argument); err != nil && (c[0] == "SETDESC" || !refused(err)) {
			return nil, unavailable("%w", err) // a pinentry that cannot say what the PIN is for is not asked for it
		}
	}
	pin, err := a.do(maxPIN, "GETPIN", "")
	if err != nil {
		return nil, pinentryFault(err)
	}
	a.do(0, "BYE", "") // whatever it answers, the PIN is there
	return pin, nil
}

// refused is whether the other side understood and said no, after which it can be asked for something else.
func refused(err error) bool {
	var e *assuanError
	return errors.As(err, &e)
}

// pinentryFault tells a person who says no from a pinentry that cannot ask.
func pinentryFault(err error) error {
	var e *assuanError
	if errors.As(err, &e) {
		switch e.code & gpgCodeMask {
		case gpgCancelled, gpgFullyCancelled:
			return errPINCancelled
		case gpgTimeout:
			return errPINTimeout
		}
	}
	return unavailable("%w", err)
}
