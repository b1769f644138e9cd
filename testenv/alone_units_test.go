package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mayfly/testenv/netlab"
)

// systemctl does what systemd would with the page's units.
func (a *alone) systemctl(words ...string) {
	a.t.Helper()
	verb, units := words[0], slices.DeleteFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "-") })
	for _, unit := range units {
		switch {
		case unit == "ssh": // Debian's own; promises asks it what it would do
		case verb == "restart":
			a.running[unit].stop()
			a.start(unit)
		case verb == "enable" || verb == "start":
			a.start(unit)
		default:
			a.t.Fatalf("systemctl %q", words)
		}
	}
	if verb != "daemon-reload" && len(units) == 0 {
		a.t.Fatalf("systemctl %q", words)
	}
}

// setting is what the gate's unit files say last, drop-ins included. An empty line takes back what was before.
func (a *alone) setting(unit, key string) string {
	a.t.Helper()
	base := filepath.Join(a.dir, "gate", "etc", "systemd", "system", unit)
	more, err := filepath.Glob(base + ".d/*.conf")
	if err != nil {
		a.t.Fatal(err)
	}
	value := ""
	for _, file := range append([]string{base}, more...) {
		data, err := os.ReadFile(file)
		if err != nil {
			a.t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
				value = v
			}
		}
	}
	return value
}

// start starts a unit as its user, with its socket.
func (a *alone) start(unit string) {
	a.t.Helper()
	if strings.HasSuffix(unit, ".timer") || strings.HasSuffix(unit, ".socket") {
		a.setting(unit, "WantedBy") // it is there; its service is what runs
		return
	}
	user := a.setting(unit, "User")
	args := []string{"setpriv", "--reuid=" + user, "--regid=" + a.setting(unit, "Group"), "--init-groups", "--no-new-privs", "--bounding-set=-all"}
	if c := a.setting(unit, "AmbientCapabilities"); c != "" {
		c = "+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
		args = append(args[:len(args)-1], "--bounding-set=-all,"+c, "--inh-caps="+c, "--ambient-caps="+c)
	}
	args = append(args, strings.Fields(a.setting(unit, "ExecStart"))...)
	if a.setting(unit, "Type") == "oneshot" {
		ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
		defer cancel()
		if out, err := a.command(ctx, "gate", args...).CombinedOutput(); err != nil {
			a.t.Fatalf("%s: %v\n%s", unit, err, out)
		}
		return
	}
	if a.setting(unit, "Requires") == "" { // it has no socket
		a.running[unit] = a.background("gate", unit, args...)
		return
	}
	socket := a.setting(strings.TrimSuffix(unit, ".service")+".socket", "ListenStream")
	a.running[unit] = a.background("gate", unit, append([]string{"systemd-socket-activate", "--listen=" + socket}, args...)...)
	// Unlike systemd's, this tool starts the program only when somebody comes.
	address := netip.MustParseAddrPort(socket)
	a.until("the socket "+socket, func() bool {
		conn, err := a.lab.Core.DialContext(a.t.Context(), "tcp", socket, address.Addr())
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	const refused = "attaching address filter: operation not permitted"
	said := a.running[unit].said
	a.until("ready", func() bool {
		return strings.Contains(said.String(), "bastion: serve: ready") || strings.Contains(said.String(), refused)
	})
	if strings.Contains(said.String(), refused) && a.setting(unit, "AmbientCapabilities") == "" {
		a.running[unit].stop()
		if !strings.Contains(said.String(), "address-filter.conf") {
			a.t.Errorf("no hint: %s", said)
		}
		a.run("gate", "install -D -m 644 -t /etc/systemd/system/bastion.service.d bastion/systemd/address-filter.conf")
		a.start(unit)
	}
}

// background runs a program on the gate until it is stopped, or the test ends.
func (a *alone) background(where, name string, args ...string) *running {
	a.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	return a.started(name, a.command(ctx, where, args...), stop, (*exec.Cmd).Start)
}

// inNamespace runs one where no machine of its own is needed.
func (a *alone) inNamespace(n netlab.Namespace, name string, args ...string) *running {
	a.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	return a.started(name, exec.CommandContext(ctx, args[0], args[1:]...), stop, n.Start)
}

func (a *alone) started(name string, cmd *exec.Cmd, stop func(), start func(*exec.Cmd) error) *running {
	a.t.Helper()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	r := &running{said: new(heard)}
	cmd.Stdout, cmd.Stderr = r.said, r.said
	if err := start(cmd); err != nil {
		stop()
		a.t.Fatal(fmt.Errorf("%s: %w", name, err))
	}
	ended := false
	r.stop = func() {
		if !ended {
			ended = true
			stop()
			_ = cmd.Wait() // interrupted
		}
	}
	a.t.Cleanup(func() {
		r.stop()
		if a.t.Failed() {
			a.t.Logf("%s: %s", name, r.said)
		}
	})
	return r
}
