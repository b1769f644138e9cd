package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/rebuild/power"
	"mayfly/testenv/netlab"
)

// rebuiltBastion logs in through the bastion that is a server of the fleet, rebuilds it, and logs in again by the same known_hosts.
// The log of its first life is at the controller, whole, when the machine is gone.
func rebuiltBastion(t *testing.T, d *demo) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	server := func() store.Server {
		t.Helper()
		all, err := d.servers(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return all[gate.Name]
	}
	login := func(want string) {
		t.Helper()
		limit, cancel := context.WithTimeout(ctx, sshLimit)
		defer cancel()
		cmd := d.sshCommand(limit, engineer, "-J", gate.Name, machines[1].Name, "hostname")
		out, err := outputOf(cmd, d.e.lab.Client.Start)
		if err != nil || strings.TrimSpace(out) != want {
			t.Fatalf("ssh -J %s: got %q, %v, want %q", gate.Name, out, err, want)
		}
	}
	s, err := sqlite.Open(ctx, d.e.fleet("store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first := server()
	if first.State != inventory.Serving || first.Epoch == 0 {
		t.Fatalf("%s is %s in life %d: %s", gate.Name, first.State, first.Epoch, first.Cause)
	}
	login(machines[1].Name)
	d.awaitClosing(t, ctx, first.Epoch, 1)

	// Nobody else gets an answer there: not even the controller, whose address is not on the list.
	silent, cancelSilent := context.WithTimeout(ctx, silentLimit)
	defer cancelSilent()
	address, _, _ := strings.Cut(gate.Address, "/")
	if conn, err := d.e.lab.Core.DialContext(silent, "tcp", address+":22", netlab.Controller); err == nil {
		conn.Close()
		t.Error("the controller's address gets an answer on port 22")
	}

	// Drained, it ends by itself, and its log is whole: the last record is that it stopped, under a checkpoint.
	if err := s.Move(ctx, gate.Name, first.Epoch, inventory.Serving, inventory.Draining, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.OrderDrain(ctx, gate.Name, first.Epoch, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, d, gate.Name, "it has drained", func() bool { return server().Drained })
	if server().DrainForced {
		t.Error("nobody was in, and the drain was forced")
	}
	if report := d.gateLog(t, first.Epoch); report.Unsigned != 0 {
		t.Errorf("after a drain %d records are not signed", report.Unsigned)
	}

	began := time.Now()
	beginLife(t, ctx, d, s, gate.Name, time.Hour, power.Options{})
	await(t, ctx, d, gate.Name, "the next life is healthy", func() bool {
		s := server()
		var health struct{ Ready bool }
		return s.Epoch > first.Epoch && s.BootID != "" && s.BootID != first.BootID && json.Unmarshal(s.Health, &health) == nil && health.Ready
	})
	t.Logf("rebuilt in %s", time.Since(began).Round(100*time.Millisecond))
	second := server()
	if first.HostKey == second.HostKey {
		t.Error("both lives have one host key")
	}
	login(machines[1].Name) // with the ssh_config and known_hosts of before: a warning would be an error
	d.awaitClosing(t, ctx, second.Epoch, 1)
	d.awaitClosing(t, ctx, first.Epoch, 1) // still there
}

// awaitClosing waits until the controller's copy of a life's log verifies, and has this many closing records of admitted connections.
func (d *demo) awaitClosing(t *testing.T, ctx context.Context, epoch uint64, want int) {
	t.Helper()
	dir := d.e.fleet("audit", gate.Name, strconv.FormatUint(epoch, 10))
	await(t, ctx, d, gate.Name, "the closing record is at the controller", func() bool {
		closed := 0
		_, err := audit.Read(dir, 0, func(_ uint64, line []byte) error {
			var r struct {
				Event  string
				Record struct{ Outcome, User string }
			}
			if err := json.Unmarshal(line, &r); err != nil {
				return err
			}
			if r.Event == "connection" && r.Record.Outcome == "accepted" && r.Record.User == engineer {
				closed++
			}
			return nil
		})
		return err == nil && closed == want
	})
	d.gateLog(t, epoch)
}

// gateLog verifies the controller's copy of a life's log.
func (d *demo) gateLog(t *testing.T, epoch uint64) audit.Report {
	t.Helper()
	dir := d.e.fleet("audit", gate.Name, strconv.FormatUint(epoch, 10))
	key, err := audit.ReadVerifier(filepath.Join(dir, audit.KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(dir, audit.Trusted{Log: key})
	if err != nil || !strings.HasSuffix(report.Origin, "/"+gate.Name+"/"+strconv.FormatUint(epoch, 10)) {
		t.Errorf("the log of life %d: got %+v, %v", epoch, report, err)
	}
	return report
}
