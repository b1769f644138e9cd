//go:build pcsc

package cardpeers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/testenv/pcscd"
	"mayfly/testenv/pivcard"
)

// patience is for what must happen.
const patience = 60 * time.Second

// issuer made all the cards.
var issuer = sync.OnceValues(pivcard.NewIssuer)

// foreigner makes cards too, and nobody trusts it.
var foreigner = sync.OnceValues(pivcard.NewIssuer)

// desk is where somebody sits: a daemon of their own, a card, and a directory.
type desk struct {
	*pcscd.Daemon
	t      *testing.T
	ctx    context.Context
	card   *pivcard.Card
	reader int
	conn   net.Conn
	served chan error
	home   string
}

// sit starts a daemon and plugs in a new card of that firmware.
func sit(t *testing.T, firmware pivcard.Firmware) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "desk-") // t.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	t.Cleanup(cancel)
	daemon, err := pcscd.Start(ctx, pcscd.Place{Dir: filepath.Join(dir, "pcscd"), Readers: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("pcscd's log ends:\n%s", daemon.Log())
		}
		if err := daemon.Close(); err != nil {
			t.Error(err)
		}
	})
	return plugNew(t, ctx, daemon, 0, firmware, dir)
}

// plugNew plugs a new card into a reader.
func plugNew(t *testing.T, ctx context.Context, daemon *pcscd.Daemon, reader int, firmware pivcard.Firmware, home string) *desk {
	t.Helper()
	maker, err := issuer()
	if err != nil {
		t.Fatal(err)
	}
	card, err := pivcard.New(pivcard.Config{Firmware: firmware, Issuer: maker})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{Daemon: daemon, t: t, ctx: ctx, card: card, reader: reader, home: home}
	d.plug()
	t.Cleanup(func() {
		if err := d.unplug(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// plug puts the card into the reader.
func (d *desk) plug() {
	d.t.Helper()
	conn, err := d.Dial(d.ctx, d.reader)
	if err != nil {
		d.t.Fatal(err)
	}
	d.conn, d.served = conn, make(chan error, 1)
	go func() { d.served <- d.card.Serve(context.Background(), conn) }()
	if err := d.AwaitCard(d.ctx, d.reader); err != nil {
		d.t.Fatal(err)
	}
}

// unplug takes the card out, also in the middle of a command. Safe to repeat.
func (d *desk) unplug() error {
	if d.conn == nil {
		return nil
	}
	d.conn.Close()
	d.conn = nil
	if err := <-d.served; err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("the card: %w", err)
	}
	return nil
}

// pull unplugs the card and waits until the daemon has noticed.
func (d *desk) pull() error {
	before, err := d.State(d.ctx, d.reader)
	if err != nil {
		return err
	}
	return errors.Join(d.unplug(), d.AwaitRemoval(d.ctx, d.reader, before))
}

// path is a file in the directory.
func (d *desk) path(name string) string { return filepath.Join(d.home, name) }

// write writes a file and returns its path.
func (d *desk) write(name string, data []byte) string {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), data, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.path(name)
}

// read reads a file.
func (d *desk) read(name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

// said is what a program did.
type said struct {
	out  string // both of its outputs
	code int
}

// run runs a client of the daemon.
func (d *desk) run(name string, args ...string) said {
	d.t.Helper()
	return d.result(d.Command(d.ctx, name, args...))
}

func (d *desk) result(cmd *exec.Cmd) said {
	d.t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, d.home
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("%s: %v", cmd.Path, err)
	}
	return said{out.String(), cmd.ProcessState.ExitCode()}
}

// must runs a client that has to succeed, and to say all of want.
func (d *desk) must(s said, want ...string) string {
	d.t.Helper()
	if s.code != 0 {
		d.t.Fatalf("got exit status %d: %s", s.code, s.out)
	}
	d.says(s, want...)
	return s.out
}

// mustNot runs a client that has to fail, and to say all of want.
func (d *desk) mustNot(s said, want ...string) {
	d.t.Helper()
	if s.code == 0 {
		d.t.Fatalf("it succeeded: %s", s.out)
	}
	d.says(s, want...)
}

func (d *desk) says(s said, want ...string) {
	d.t.Helper()
	for _, w := range want {
		if !strings.Contains(s.out, w) {
			d.t.Fatalf("got exit status %d and %q, want %q in it", s.code, s.out, w)
		}
	}
}

// whenAsked does something as soon as the card asks for a touch, which use makes it do, and returns when both are done.
func (d *desk) whenAsked(something func() error, use func()) {
	d.t.Helper()
	asked := make(chan error, 1)
	go func() {
		if err := d.card.Touch.Asked(d.ctx); err != nil {
			asked <- err
			return
		}
		asked <- something()
	}()
	use()
	if err := <-asked; err != nil {
		d.t.Error(err)
	}
}

// late makes every touch come after the card's window.
func (d *desk) late() {
	d.t.Helper()
	if err := errors.Join(d.card.Touch.SetMode(pivcard.TouchLate), d.card.Touch.SetWindow(time.Millisecond)); err != nil {
		d.t.Fatal(err)
	}
}

// inTime gives the card a window in which a touch comes at any load.
func (d *desk) inTime() {
	d.t.Helper()
	if err := d.card.Touch.SetWindow(15 * time.Second); err != nil {
		d.t.Fatal(err)
	}
}
