package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// busConfig is that of a session bus without services: nobody is started.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=%s</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
`

// startBus starts a real dbus-daemon and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	need(t, "dbus-daemon")
	dir := socketDir(t)
	config := filepath.Join(dir, "bus.conf")
	write(t, config, fmt.Sprintf(busConfig, filepath.Join(dir, "bus")), 0o600)
	cmd := exec.CommandContext(t.Context(), "dbus-daemon", "--nofork", "--print-address", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}

// notifications is a desktop's notification service.
type notifications struct {
	mu     sync.Mutex
	next   uint32
	events []string
	change chan struct{}
}

func (n *notifications) note(format string, args ...any) {
	n.events = append(n.events, fmt.Sprintf(format, args...))
	n.change <- struct{}{}
}

func (n *notifications) Notify(app string, replaces uint32, _ string, summary, body string, actions []string, hints map[string]dbus.Variant, expire int32) (uint32, *dbus.Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	n.note("notify %d %s|%s|%s|%d %d %v %d", n.next, app, summary, body, replaces, len(actions), hints["urgency"].Value(), expire)
	return n.next, nil
}

func (n *notifications) CloseNotification(id uint32) *dbus.Error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.note("close %d", id)
	return nil
}

// TestDesktop: over a real session bus, the notice is there while the key is to be touched, and is taken back when it was.
func TestDesktop(t *testing.T) {
	address := startBus(t)
	service := &notifications{change: make(chan struct{}, 64)}
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Export(service, notifyPath, notifyName); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(notifyName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	f := start(t, func(c *Config) { c.Displays = []Display{Desktop{}} })
	card := f.cards.plug(t, 1).withTouch()
	a, _ := f.client()
	signed := make(chan error, 1)
	go func() {
		_, err := a.Sign(card.public(), fileData("x<b>y&z"))
		signed <- err
	}()
	<-service.change
	<-card.waiting
	card.touch <- nil
	if err := <-signed; err != nil {
		t.Fatal(err)
	}
	<-service.change
	want := []string{
		"notify 1 bastion-agent|Touch your key|to sign a file for the purpose x&lt;b&gt;y&amp;z (TEST card 1)|0 0 2 0",
		"close 1",
	}
	f.stop()
	service.mu.Lock()
	defer service.mu.Unlock()
	if strings.Join(service.events, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q\nwant %q", service.events, want)
	}
	eventually(t, func() error {
		names, err := busClients(conn)
		if err == nil && names != 1 {
			err = fmt.Errorf("%d connections are left on the bus, want the test's own", names)
		}
		return err
	})
}

// busClients counts who is on the bus.
func busClients(conn *dbus.Conn) (n int, err error) {
	var names []string
	err = conn.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names)
	for _, name := range names {
		if strings.HasPrefix(name, ":") {
			n++
		}
	}
	return n, err
}

// TestNoDesktop: without a bus, and with one that has no notification service, the signature is made all the same.
func TestNoDesktop(t *testing.T) {
	for name, address := range map[string]string{"no bus": "unix:path=/nonexistent/bus", "no service": startBus(t), "no address": "nonsense"} {
		t.Run(name, func(t *testing.T) {
			f := start(t, func(c *Config) { c.Displays = []Display{Desktop{Address: address}} })
			card := f.cards.plug(t, 1).withTouch()
			card.set(func() { card.pin = "1" })
			f.person.answers = []string{"1"}
			done, _ := signing(t, f, card.public())
			<-card.waiting
			card.touch <- nil
			if got := <-done; got != "" {
				t.Errorf("got %s", got)
			}
			f.log.wait(t, "a notice was not shown", "desktop")
		})
	}
}

// TestConsole is what the terminal shows.
func TestConsole(t *testing.T) {
	var b bytes.Buffer
	c := NewConsole(&b)
	over, err := c.Show(t.Context(), Notice{Title: "Touch your key", Body: "to log in", Stays: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := over(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	if over, err := c.Show(t.Context(), Notice{Title: "Not signed", Body: "why"}); err != nil || over != nil {
		t.Errorf("got %v", err)
	}
	want := "bastion-agent: Touch your key: to log in\nbastion-agent: Touch your key: done\nbastion-agent: Not signed: why\n"
	if b.String() != want {
		t.Errorf("got %q", b.String())
	}
}

// TestMacOS: texts are arguments of the script, never part of it.
func TestMacOS(t *testing.T) {
	program := filepath.Join(t.TempDir(), "osascript")
	write(t, program, "#!/bin/sh\nfor a; do echo \"[$a]\"; done > \"$0.args\"\n", 0o755)
	text := `" & (do shell script "id") & "`
	if _, err := (MacOS{program}).Show(t.Context(), Notice{Title: "Touch", Body: text}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(program + ".args")
	if err != nil {
		t.Fatal(err)
	}
	want := "[-e]\n[on run argv]\n[-e]\n[display notification (item 2 of argv) with title (item 1 of argv)]\n[-e]\n[end run]\n[--]\n[Touch]\n[" + text + "]\n"
	if string(data) != want {
		t.Errorf("got %s", data)
	}
	if _, err := (MacOS{"/bin/false"}).Show(t.Context(), Notice{}); err == nil {
		t.Error("a failing osascript is no error")
	}
}
