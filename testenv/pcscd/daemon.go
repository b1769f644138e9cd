package pcscd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mayfly/testenv/netlab"
)

// grace is between TERM and KILL. A daemon that waits for a card's answer does not hear TERM.
const grace = 5 * time.Second

// logLines of the daemon's log are in an error about it.
const logLines = 20

// Network is a network namespace: netlab.Namespace, or netlab.Private.
type Network interface{ Do(func() error) error }

// Daemon is a running pcscd.
type Daemon struct {
	Place
	network Network
	private *netlab.Private // nil in a namespace that was given
	process *os.Process
	done    chan struct{}
	err     error // owned by the waiting goroutine until done is closed
}

// Start starts the daemon and returns when it answers. Without a network it gets one of its own.
func Start(ctx context.Context, place Place, network Network) (*Daemon, error) {
	d := &Daemon{Place: place, network: network, done: make(chan struct{})}
	cmd, err := place.Prepare()
	if err != nil {
		return nil, err
	}
	if network == nil {
		if d.private, err = netlab.NewPrivate(); err != nil {
			return nil, fmt.Errorf("starting pcscd: %w", err)
		}
		d.network = d.private
	}
	if err := d.run(ctx, cmd); err != nil {
		return nil, fmt.Errorf("starting pcscd: %w", err)
	}
	return d, nil
}

// run starts the daemon and waits until it answers. On an error nothing of it is left.
func (d *Daemon) run(ctx context.Context, cmd *exec.Cmd) error {
	if err := d.start(cmd); err != nil {
		return errors.Join(err, d.letGo())
	}
	ready, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-d.done:
			cancel()
		case <-ready.Done():
		}
	}()
	err := d.Ready(ready)
	if err == nil {
		return nil
	}
	select {
	case <-d.done:
		err = fmt.Errorf("it ended: %w", d.err)
	default:
	}
	log := d.Log() // before it is told to end, of which it says a lot
	return errors.Join(fmt.Errorf("%w; its log ends:\n%s", err, log), d.Close())
}

// start runs the daemon on a thread that stays until it has ended: PR_SET_PDEATHSIG is about the parent's thread, not its process.
func (d *Daemon) start(cmd *exec.Cmd) error {
	log, err := os.OpenFile(d.logFile(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error, 1)
	go func() {
		err := d.network.Do(func() error {
			if err := cmd.Start(); err != nil {
				return err
			}
			d.process = cmd.Process
			started <- nil
			d.err = cmd.Wait()
			close(d.done)
			return nil
		})
		if err != nil {
			started <- err // it did not start: nothing else makes an error
		}
	}()
	return <-started
}

func (d *Daemon) logFile() string { return filepath.Join(d.Dir, "pcscd.log") }

// Log returns the last lines of the daemon's log, or why it cannot be read.
func (d *Daemon) Log() string {
	data, err := os.ReadFile(d.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}

// PID is the daemon's.
func (d *Daemon) PID() int { return d.process.Pid }

// Done is closed when the daemon has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Dial plugs a card into a reader: what comes back speaks vpcd's protocol, and the card is pulled when it is closed.
func (d *Daemon) Dial(ctx context.Context, reader int) (conn net.Conn, err error) {
	if reader < 0 || reader >= d.Readers {
		return nil, fmt.Errorf("dialling reader %d: there are %d", reader, d.Readers)
	}
	dialer := net.Dialer{FallbackDelay: -1} // one socket, made on this thread
	err = d.network.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.Port(reader))))
		return err
	})
	return conn, err
}

// Close ends the daemon and waits until it has ended. It is safe to repeat.
func (d *Daemon) Close() error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := d.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return errors.Join(fmt.Errorf("ending pcscd: %w", err), d.letGo())
		}
		limit := time.NewTimer(grace)
		select {
		case <-d.done:
			limit.Stop()
			return d.letGo()
		case <-limit.C:
		}
	}
	<-d.done // after KILL
	return d.letGo()
}

// letGo gives the network namespace up.
func (d *Daemon) letGo() error {
	if d.private == nil {
		return nil
	}
	private := d.private
	d.private = nil
	return private.Close()
}
