package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/command"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	bad := path("bad.json", "{\n\"nome\": 1}")
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{[]string{"--help"}, command.OK, "tunnel register", ""},
		{[]string{"version"}, command.OK, "tunnel ", ""},
		{[]string{"server", "--help"}, command.OK, "Example: tunnel server", ""},
		{[]string{"client", "-h"}, command.OK, "-resolv-conf", ""},
		{[]string{"register", "--help"}, command.OK, "Example: tunnel register", ""},
		{[]string{"device", "--help"}, command.OK, "Example: tunnel device", ""},
		{nil, command.Usage, "", "no verb given"},
		{[]string{"sever"}, command.Usage, "", "unknown verb \"sever\""},
		{[]string{"server"}, command.Usage, "", "no --config"},
		{[]string{"client"}, command.Usage, "", "no --config"},
		{[]string{"device"}, command.Usage, "", "no --config"},
		{[]string{"register", "--config", bad}, command.Usage, "", "no --out"},
		{[]string{"register", "--config", bad, "--out", "x", "-o", "xml"}, command.Usage, "", "want text or json"},
		{[]string{"client", "--config", bad, "extra"}, command.Usage, "", "unexpected argument \"extra\""},
		{[]string{"client", "--route", "10.0.0.1/8"}, command.Usage, "", "10.0.0.1/8 has host bits set: write 10.0.0.0/8"},
		{[]string{"client", "--route", "here"}, command.Usage, "", "want a prefix"},
		{[]string{"client", "--config", bad}, command.Failed, "", "bad.json: line 2: json: unknown field \"nome\"\ntunnel: hint: take the fleet's"},
		{[]string{"client", "--config", dir + "/none"}, command.Failed, "", "no such file"},
		{[]string{"server", "--config", bad}, command.Failed, "", "bad.json: json: unknown field"},
		{[]string{"server", "--config", path("empty.json", "{}")}, command.Failed, "", "empty.json: no name"},
		{[]string{"device", "--config", bad}, command.Failed, "", "unknown field"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(c.args, strings.NewReader(""), &stdout, &stderr)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("tunnel %s: exit code %d, want %d\nstdout %s\nstderr %s\nwant %q and %q",
				strings.Join(c.args, " "), code, c.code, &stdout, &stderr, c.stdout, c.stderr)
		}
		if c.code == command.OK && stderr.Len() > 0 {
			t.Errorf("tunnel %s: stderr %s", strings.Join(c.args, " "), &stderr)
		}
	}
}

// TestServerRefusals are mistakes that a server finds before it touches the kernel.
func TestServerRefusals(t *testing.T) {
	l := newLab(t)
	l.server("srv1", "10.64.1.0/24")
	base := filepath.Join(l.dir, "srv1")
	good := text(t, filepath.Join(base, "server.json"))
	for _, c := range []struct{ name, old, new, want string }{
		{"control socket in use", "", "", "another tunnel server runs here"},
		{"registration port in use", "control.sock", "other.sock", "listening for registration at :7443"},
		{"key that everybody can read", "wg.key", "open.key", "open.key"},
		{"rubbish for a key", "wg.key", "tls.key", "tls.key: not a usable WireGuard key"},
		{"no certificate", "tls.pem", "none.pem", "none.pem"},
	} {
		if err := os.WriteFile(filepath.Join(base, "open.key"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(base, "changed.json")
		l.write(path, []byte(strings.Replace(good, c.old, c.new, 1)))
		out, err := l.command("srv1", "server", "--config", path).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: got %v, %s; want %q", c.name, err, out, c.want)
		}
	}
	// The same UDP port in another process of the namespace, and no outside interface.
	path := filepath.Join(base, "changed.json")
	changed := strings.NewReplacer("control.sock", "other.sock", ":7443", ":7444")
	l.write(path, []byte(changed.Replace(good)))
	if out, err := l.command("srv1", "server", "--config", path).CombinedOutput(); err == nil {
		t.Errorf("a second server on the same interface and port: %s", out)
	}
	outside := filepath.Join(l.dir, "outside.json")
	l.write(outside, []byte(strings.NewReplacer("control.sock", "outside.sock", "eth0", "eth9").Replace(good)))
	out, err := l.command("srv2", "server", "--config", outside).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "finding the outside interface eth9") || !strings.Contains(string(out), "tunnel: hint: set outside") {
		t.Errorf("no outside interface: got %v, %s", err, out)
	}
}
