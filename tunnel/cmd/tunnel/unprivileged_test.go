package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestUnprivileged runs the server as mayfly-init does: as a user of its own that keeps two of root's powers.
func TestUnprivileged(t *testing.T) {
	l := newLab(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv (package util-linux)")
	}
	l.configure("srv1", "10.64.1.0/24")
	base := filepath.Join(l.dir, "srv1")
	for dir := l.dir; dir != filepath.Dir(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		if dir == os.TempDir() {
			break
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const user = 65534
	for _, path := range []string{base, filepath.Join(base, "tls.pem"), filepath.Join(base, "tls.key"), filepath.Join(base, "wg.key"), filepath.Join(base, "server.json")} {
		if err := os.Chown(path, user, user); err != nil {
			t.Fatal(err)
		}
	}
	// The node's own mount namespace gets a /dev/net/tun that every user may open, as init lays it in a machine.
	const script = `set -e; mknod "$0" c 10 200; chmod 666 "$0"; mount --bind "$0" /dev/net/tun
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,+net_admin,+net_raw --ambient-caps=-all,+net_admin,+net_raw \
--bounding-set=-all,+net_admin,+net_raw --no-new-privs "$@"`
	self := filepath.Join(l.dir, "tunnel")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, program, 0o755); err != nil {
		t.Fatal(err)
	}
	p := l.startCommand("srv1 server", l.inNode("srv1", "sh", "-c", script, filepath.Join(l.dir, "tun"), self, "server", "--config", filepath.Join(base, "server.json")))
	p.says("msg=ready")
	l.publish(nil, entry("srv1", false))
	cli := l.start("cli1", "client", "--config", l.clientConfig(nil), "--route", "203.0.113.0/24")
	cli.event("up")
	if err := l.fetch("cli1", "http://203.0.113.10/", patience); err != nil {
		t.Error(err)
	}
	if s := l.control("srv1", "GET", "/status", ""); !s.Ready || s.Peers != 1 {
		t.Errorf("status: %+v", s)
	}
	if code := cli.stop(); code != 0 {
		t.Errorf("the client's exit code %d", code)
	}
	if code := p.stop(); code != 0 {
		t.Errorf("the server's exit code %d", code)
	}
}
