package agent

import (
	"context"
	"fmt"
	"html"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Notice is something to show to the person at the machine.
type Notice struct {
	Title, Body string
	Stays       bool // until it is taken back; otherwise it goes by itself
}

// Display shows notices. takeBack, which may be nil, removes one that stays; it says how that ended.
type Display interface {
	Name() string
	Show(ctx context.Context, n Notice) (takeBack func(ctx context.Context, outcome string) error, err error)
}

// displayTime bounds one call of a display.
const displayTime = 3 * time.Second

// show shows a notice everywhere at once, and holds up nobody: the returned function says that it is over and how. Each display's goroutine
// ends after that; done waits for them.
func (a *Agent) show(n Notice) (over func(outcome string)) {
	if len(a.displays) == 0 {
		return func(string) {}
	}
	outcomes := make([]chan string, len(a.displays))
	for i, d := range a.displays {
		outcomes[i] = make(chan string, 1)
		a.done.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), displayTime)
			takeBack, err := d.Show(ctx, n)
			cancel()
			outcome := <-outcomes[i]
			if err == nil && takeBack != nil {
				ctx, cancel = context.WithTimeout(context.Background(), displayTime)
				err = takeBack(ctx, outcome)
				cancel()
			}
			if err != nil {
				a.log.Debug("a notice was not shown", "display", d.Name(), "error", err)
			}
		})
	}
	var once sync.Once
	return func(outcome string) {
		once.Do(func() {
			for _, c := range outcomes {
				c <- outcome
			}
		})
	}
}

// Console writes notices as lines.
type Console struct {
	mu sync.Mutex
	w  io.Writer
}

// NewConsole shows notices on a terminal.
func NewConsole(w io.Writer) *Console { return &Console{w: w} }

var _ Display = (*Console)(nil)

// Name is what --notify calls it.
func (*Console) Name() string { return "terminal" }

// Show writes the line; what becomes of it is written as another.
func (c *Console) Show(_ context.Context, n Notice) (func(context.Context, string) error, error) {
	write := func(text string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, err := fmt.Fprintf(c.w, "bastion-agent: %s\n", text)
		return err
	}
	if err := write(n.Title + ": " + n.Body); err != nil || !n.Stays {
		return nil, err
	}
	return func(_ context.Context, outcome string) error { return write(n.Title + ": " + outcome) }, nil
}

// Specification constants: Desktop Notifications Specification 1.2.
const (
	notifyName     = "org.freedesktop.Notifications"
	notifyPath     = "/org/freedesktop/Notifications"
	notifyNever    = int32(0)  // of expiry
	notifyDefault  = int32(-1) // the server's own
	urgencyNormal  = byte(1)
	urgencyHighest = byte(2)
)

// Desktop shows notices by the desktop's notification service, over the session bus.
type Desktop struct {
	// Address of the bus; the environment's (DBUS_SESSION_BUS_ADDRESS) if empty.
	Address string
}

var _ Display = Desktop{}

// Name is what --notify calls it.
func (Desktop) Name() string { return "desktop" }

// connect opens a connection for one notice, so that a bus that was restarted or came later needs no care. No bus is started. The
// connection lives until hangUp; ctx bounds how long it takes to come about.
func (d Desktop) connect(ctx context.Context) (conn *dbus.Conn, hangUp func(), err error) {
	life, hangUp := context.WithCancel(context.Background())
	settled := context.AfterFunc(ctx, hangUp)
	if d.Address != "" {
		conn, err = dbus.Dial(d.Address, dbus.WithContext(life))
	} else {
		conn, err = dbus.SessionBusPrivateNoAutoStartup(dbus.WithContext(life))
	}
	if err == nil {
		err = conn.Auth(nil)
	}
	if err == nil {
		err = conn.Hello()
	}
	if !settled() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		hangUp()
		return nil, nil, err
	}
	return conn, hangUp, nil
}

// Show shows the notice, urgently where it stays. The connection is kept until it is taken back: desktops drop what a program that has
// left the bus showed.
func (d Desktop) Show(ctx context.Context, n Notice) (takeBack func(context.Context, string) error, err error) {
	conn, hangUp, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	hints := map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgencyNormal)}
	expiry := notifyDefault
	if n.Stays {
		expiry = notifyNever
		hints["urgency"] = dbus.MakeVariant(urgencyHighest)
		hints["transient"] = dbus.MakeVariant(true) // nothing is left in a list of what was missed
	}
	service := conn.Object(notifyName, notifyPath)
	var id uint32
	// A body may be taken for markup.
	err = service.CallWithContext(ctx, notifyName+".Notify", 0, "bastion-agent", uint32(0), "dialog-password", n.Title,
		html.EscapeString(n.Body), []string{}, hints, expiry).Store(&id)
	if err != nil || !n.Stays {
		hangUp()
		return nil, err
	}
	return func(ctx context.Context, _ string) error {
		defer hangUp()
		return service.CallWithContext(ctx, notifyName+".CloseNotification", 0, id).Err
	}, nil
}

// MacOS shows notices by osascript. macOS offers no way to take one back: it goes by itself.
type MacOS struct {
	Program string // "/usr/bin/osascript"
}

var _ Display = MacOS{}

// Name is what --notify calls it.
func (MacOS) Name() string { return "desktop" }

// macScript gets the texts as arguments, so that nothing in them is script.
var macScript = []string{"-e", "on run argv", "-e", "display notification (item 2 of argv) with title (item 1 of argv)", "-e", "end run", "--"}

// Show shows the notice.
func (m MacOS) Show(ctx context.Context, n Notice) (func(context.Context, string) error, error) {
	cmd := exec.CommandContext(ctx, m.Program, append(macScript[:len(macScript):len(macScript)], n.Title, n.Body)...)
	cmd.WaitDelay = programWait
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", m.Program, err, shown(string(out)))
	}
	return nil, nil
}
