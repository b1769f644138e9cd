package main

import (
	"bytes"
	"context"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const unitDir = "../../systemd"

// unitSettings reads a unit file: each setting's values in order, by "Section.Name".
func unitSettings(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(unitDir, name))
	if err != nil {
		t.Fatal(err)
	}
	settings, section := map[string][]string{}, ""
	for _, line := range strings.Split(string(text), "\n") {
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		case ok:
			settings[section+"."+key] = append(settings[section+"."+key], value)
		default:
			t.Errorf("%s: %q is no setting", name, line)
		}
	}
	return settings
}

// tight is what keeps a service that was taken over to itself.
var tight = map[string]string{
	"NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "PrivateUsers": "yes", "PrivateDevices": "yes",
	"PrivateTmp": "yes", "PrivateIPC": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "ProtectClock": "yes",
	"ProtectHostname": "yes", "ProtectControlGroups": "yes", "ProtectKernelLogs": "yes", "ProtectKernelModules": "yes",
	"ProtectKernelTunables": "yes", "ProtectProc": "invisible", "ProcSubset": "pid", "KeyringMode": "private", "LockPersonality": "yes",
	"MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes",
	"SystemCallArchitectures": "native", "LimitCORE": "0", "UMask": "0077",
}

// services are the units that run programs, and as whom.
var services = map[string]string{"bastion.service": "mayfly-bastion", "bastion-renew.service": "mayfly-bastion", "mayfly-ca.service": "mayfly-ca",
	"mayfly-certify.service": "mayfly-ca"}

func TestUnitsAreTight(t *testing.T) {
	for unit, user := range services {
		got := unitSettings(t, unit)
		if v := got["Service.User"]; !slices.Equal(v, []string{user}) {
			t.Errorf("%s: runs as %q, want %s", unit, v, user)
		}
		// What keeps it from starting, a full disk or a certificate that ran out, ends by itself.
		if v := got["Unit.StartLimitIntervalSec"]; !slices.Equal(v, []string{"0"}) {
			t.Errorf("%s: gives up after a while: StartLimitIntervalSec %q", unit, v)
		}
		for key, want := range tight {
			if v := got["Service."+key]; !slices.Equal(v, []string{want}) {
				t.Errorf("%s: %s: got %q, want %q", unit, key, v, want)
			}
		}
		if calls := got["Service.SystemCallFilter"]; len(calls) < 2 || !strings.HasPrefix(calls[1], "~") || !strings.Contains(calls[1], "@privileged") {
			t.Errorf("%s: calls %q", unit, calls)
		}
	}
	if certify := unitSettings(t, "mayfly-certify.service"); !slices.Contains(certify["Unit.Before"], "bastion.service") || certify["Service.Type"][0] != "oneshot" {
		t.Errorf("at boot the bastion does not wait for its certificate: %q", certify)
	}
	service, socket := unitSettings(t, "bastion.service"), unitSettings(t, "bastion.socket")
	if service["Service.Type"][0] != "notify" || service["Unit.Requires"][0] != "bastion.socket" {
		t.Errorf("the service does not wait for its socket and its readiness: %q", service)
	}
	if len(socket["Socket.ListenStream"]) != 1 || socket["Socket.Accept"] != nil {
		t.Errorf("the socket is not one that the bastion accepts on itself: %q", socket)
	}
}

// TestUnitsVerify asks systemd's own tool, whose exposure level goes from 0 to 10, in tenths on its command line.
func TestUnitsVerify(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (systemd), which testenv test installs")
	}
	dir := t.TempDir()
	units := append(slices.Sorted(maps.Keys(services)), "bastion.socket", "mayfly-certify.timer")
	for _, unit := range units {
		text, err := os.ReadFile(filepath.Join(unitDir, unit))
		if err != nil {
			t.Fatal(err)
		}
		// The program is not installed where the test runs.
		text = bytes.ReplaceAll(text, []byte("/usr/local/bin/bastion "), []byte("/bin/true "))
		text = bytes.ReplaceAll(text, []byte("/usr/local/bin/fleetctl "), []byte("/bin/true "))
		if err := os.WriteFile(filepath.Join(dir, unit), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, tool, args...)
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v: %s", args, err, out)
		} else if len(out) > 0 {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			t.Log(lines[len(lines)-1])
		}
	}
	verify := []string{"verify"}
	for _, unit := range units {
		verify = append(verify, filepath.Join(dir, unit))
	}
	run(verify...)
	for unit := range services {
		run("security", "--offline=true", "--threshold=15", "--no-pager", filepath.Join(dir, unit))
	}
}

// TestNotify runs a bastion, in its sandbox, under a service manager that listens.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	if err := writeFleet(dir); err != nil {
		t.Fatal(err)
	}
	config := `listen = "127.0.0.1:0"
trust = "trust.json"
bundle = "bundle.json"
host_key = "host_key"
host_certificate = "host_key-cert.pub"
audit = "audit"
`
	if err := os.WriteFile(filepath.Join(dir, "bastion.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bastion", "serve", "--config", filepath.Join(dir, "bastion.toml"))
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"READY=1\nSTATUS=on 127.0.0.1:", "STOPPING=1"} {
		if err := manager.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 1024)
		n, err := manager.Read(buffer)
		if err != nil || !strings.HasPrefix(string(buffer[:n]), want) {
			t.Errorf("got %q, %v, want %q", buffer[:n], err, want)
		}
		if want != "STOPPING=1" {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr.String())
	}
}
