package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/tunnel/client"
)

// TestStock is a user without our client: wg-quick and wireguard-go, built from its own module, with the file that
// `tunnel register` writes.
func TestStock(t *testing.T) {
	l := newLab(t)
	for _, tool := range []string{"wg", "wg-quick"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (package wireguard-tools)", tool)
		}
	}
	stock := filepath.Join(l.dir, "wireguard-go")
	build := exec.Command("go", "build", "-o", stock, "golang.zx2c4.com/wireguard")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building wireguard-go: %v\n%s", err, out)
	}
	srv := l.server("srv1", "10.64.1.0/24")
	l.publish(nil, entry("srv1", false))

	name := fmt.Sprintf("mft%x", os.Getpid())
	path := filepath.Join(l.dir, name+".conf")
	out, err := l.command("cli2", "register", "--config", l.clientConfig(nil), "--out", path, "--route", "203.0.113.0/24",
		"--no-dns", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var r client.Registered
	if err := json.Unmarshal(out, &r); err != nil || r.Server != "srv1" || r.DNS != netip.MustParseAddr("10.64.1.1") || r.File != path {
		t.Fatalf("register printed %s (%v)", out, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file's mode: %v, %v; want 0600", info.Mode(), err)
	}
	if file := text(t, path); !strings.Contains(file, "\nPresharedKey = ") || !strings.Contains(file, "\nAllowedIPs = 203.0.113.0/24\n") {
		t.Errorf("the file lacks a preshared key or its route:\n%s", file)
	}

	quick := func(verb string) {
		t.Helper()
		cmd := exec.Command("ip", "netns", "exec", l.prefix+"cli2", "wg-quick", verb, path)
		cmd.Env = append(os.Environ(), "WG_QUICK_USERSPACE_IMPLEMENTATION="+stock)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("wg-quick %s: %v\n%s", verb, err, out)
		}
	}
	quick("up")
	if err := l.fetch("cli2", "http://203.0.113.10/?size=3000000", patience); err != nil {
		t.Error(err)
	}
	if got := <-l.seen; got != "10.77.0.11" {
		t.Errorf("the target saw %s, want 10.77.0.11", got)
	}
	shown, err := exec.Command("ip", "netns", "exec", l.prefix+"cli2", "wg", "show", name, "preshared-keys").Output()
	if err != nil || strings.Contains(string(shown), "(none)") {
		t.Errorf("wg shows no preshared key: %s, %v", shown, err)
	}
	// A stock client hears of no drain: it counts until it is idle, and then the drain is done by itself.
	l.control("srv1", "POST", "/drain", `{"limit_ns":60000000000}`)
	srv.says("msg=drained server=srv1 forced=false")
	quick("down")
}

// TestRegisterFile is the file with everything in it.
func TestRegisterFile(t *testing.T) {
	l := newLab(t)
	l.server("srv1", "10.64.1.0/24")
	l.publish(nil, entry("srv1", false))
	path := filepath.Join(l.dir, "wg0.conf")
	out, err := l.command("cli1", "register", "--config", l.clientConfig(nil), "--out", path).Output()
	if err != nil || !strings.HasPrefix(string(out), "registered at srv1 in region se: address 10.64.1.") {
		t.Errorf("got %q, %v", out, err)
	}
	file := text(t, path)
	for _, want := range []string{"DNS = 10.64.1.1\n", "AllowedIPs = 0.0.0.0/0, ::/0\n", "Endpoint = 10.77.0.11:51820\n",
		"PersistentKeepalive = 25\n", "MTU = 1420\n", "PresharedKey = "} {
		if !strings.Contains(file, "\n"+want) {
			t.Errorf("the file lacks %q:\n%s", want, file)
		}
	}
}
