package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/testenv/netlab"
	"mayfly/testenv/softkey"
)

// fence is a block of docs/bastion-alone.md: its kind, its place or file, its text.
var fence = regexp.MustCompile("(?ms)^```([a-z]+) ([^\\s`]+)\\n(.*?)^```$")

// aloneSSHD is web-1's sshd, with the account alice, in a mount namespace of its own.
const aloneSSHD = `set -e
mount -t tmpfs -o mode=755 none /run
mkdir /run/sshd /run/keys
cp "$1"/* /run/keys
chmod 600 /run/keys/host_key
(grep -v '^\(sshd\|alice\):' /etc/passwd; echo sshd:x:101:65534::/run/sshd:/bin/false; echo alice:*:54324:54324::/:/bin/sh) > /run/passwd
mount --bind /run/passwd /etc/passwd
exec /usr/sbin/sshd -D -e -f /run/keys/sshd_config
`

// heard keeps what a program says.
type heard struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// TestBastionAlone does what docs/bastion-alone.md says, block by block, in the lab's namespaces: the gate in the core, web-1 with
// Debian's sshd as the target, the engineer as the client. Software keys stand for hardware.
func TestBastionAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	for _, program := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: apt-get install openssh-server openssh-client util-linux: %v", program, err)
		}
	}
	dir, err := os.MkdirTemp("", "mf-alone-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	lab := netlab.Of(dir)
	if err := lab.Create(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Remove(); err != nil {
			t.Error(err)
		}
	})
	a := &alone{t: t, dir: dir, lab: lab}
	a.prepare()

	page, err := os.ReadFile("../docs/bastion-alone.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := fence.FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 12 {
		t.Fatalf("got %d blocks of the page", len(blocks))
	}
	ran := map[string]int{}
	for _, b := range blocks {
		kind, place, text := b[1], b[2], a.here(b[3])
		ran[kind+" "+place]++
		switch {
		case kind == "sh" && place == "gate" && ran["sh gate"] == 1:
			a.background(netlab.Namespace{}, "signer: ", filepath.Join(dir, "bin", "fleetctl"), "signer", "--dir", a.here("/var/lib/mayfly-ca"))
			a.appears(a.here("/var/lib/mayfly-ca/signer.sock"))
			a.run(lab.Core, "gate", text)
			said := a.background(lab.Core, "bastion: ", filepath.Join(dir, "bin", "bastion"), "serve", "--config", a.here("/etc/mayfly-bastion/bastion.toml"))
			a.says(said, "bastion: serve: ready")
		case kind == "sh" && place == "gate":
			a.journal()
			a.run(lab.Core, "gate", text)
		case kind == "sh" && place == "admin":
			a.run(netlab.Namespace{}, "admin", text)
		case kind == "sh" && place == "engineer":
			a.serveHost()
			if out := a.run(lab.Client, "admin", text); out != "one day\n" {
				t.Errorf("the engineer reads %q", out)
			}
		case kind == "toml" || kind == "text":
			if !filepath.IsAbs(place) {
				place = filepath.Join(map[string]string{"toml": "admin", "text": "host"}[kind], place)
				place = filepath.Join(dir, place)
			}
			a.write(a.here(place), text)
		case kind == "ini":
		default:
			t.Errorf("a block %s %s that nobody runs", kind, place)
		}
	}
	if ran["sh admin"] != 2 || ran["sh gate"] != 3 || ran["sh engineer"] != 1 {
		t.Errorf("ran %v", ran)
	}

	if known := a.read("var/mayfly-ca/public/known_hosts"); strings.Count(known, "@cert-authority gate.office.internal,gate ") != 2 || !strings.Contains(known, "\nweb-1.office.internal,web-1 ") {
		t.Errorf("known_hosts after `ca rotate`:\n%s", known)
	}

	// What the page promises besides. A login that did not come through the gate is named.
	a.hostSaid.Write([]byte("Accepted publickey for alice from 203.0.113.53 port 40123 ssh2: ED25519-SK SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\n"))
	a.journal()
	out, err := a.try(lab.Core, "gate", a.here("bastion audit reconcile --dir /var/lib/mayfly-bastion/audit --journal web-1.json --server web-1"))
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 || !strings.Contains(out, "NOT RECORDED") {
		t.Errorf("a login around the gate: %v\n%s", err, out)
	}
	// A host with another key is nobody's host.
	a.write(filepath.Join(dir, "admin", "office.known_hosts"), strings.ReplaceAll(a.read("admin/office.known_hosts"), strings.Fields(a.read("host/host_key.pub"))[1], strings.Fields(a.read("other.pub"))[1]))
	if out, err := a.try(lab.Client, "admin", "ssh -F office.conf web-1 true"); err == nil || !strings.Contains(strings.ToLower(out), "verification failed") {
		t.Errorf("a host with another key: %v\n%s", err, out)
	}
}

type alone struct {
	t        *testing.T
	dir      string
	lab      netlab.Lab
	alice    *softkey.Key
	hostSaid *heard
}

// here puts the page's places below the test's directory, and keys where the page has names for them.
func (a *alone) here(text string) string {
	return strings.NewReplacer("/etc/mayfly-bastion", filepath.Join(a.dir, "etc"), "/var/lib/", filepath.Join(a.dir, "var")+"/", "ed25519-sk", "ed25519",
		"WEB_1_HOST_KEY", strings.Join(strings.Fields(a.read("host/host_key.pub"))[:2], " "), "ALICE_KEY", a.alice.Authorized()).Replace(text)
}

func (a *alone) read(name string) string {
	a.t.Helper()
	data, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(data)
}

func (a *alone) write(path, text string) {
	a.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// prepare makes what the page takes for granted: programs, directories, keys, an agent, and scp to a host that is the same one.
func (a *alone) prepare() {
	t := a.t
	t.Helper()
	for _, d := range []string{"bin", "admin/office", "gate", "host", "etc", "var/mayfly-ca", "var/mayfly-bastion", "var/mayfly-bastion-host"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, source := range map[string]string{"fleetctl": "../fleetctl", "bastion": "../bastion/cmd/bastion"} {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(a.dir, "bin", name), source).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	a.write(filepath.Join(a.dir, "bin", "scp"), "#!/bin/sh\n# Every gate is this machine.\nwhile [ $# -gt 1 ]; do case $1 in -*) ;; *) files=\"$files $1\" ;; esac; shift; done\nexec cp -r $files \"${1#gate:}\"\n")
	if err := os.Chmod(filepath.Join(a.dir, "bin", "scp"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"host/host_key", "other"} {
		if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(a.dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var err error
	if a.alice, err = softkey.New(rand.Reader); err != nil {
		t.Fatal(err)
	}
	l, err := softkey.Listen(filepath.Join(a.dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- softkey.NewAgent(a.alice.Signer(softkey.Always)).Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-served })
}

func (a *alone) command(ctx context.Context, where string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = filepath.Join(a.dir, where)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(a.dir, "bin")+":"+os.Getenv("PATH"), "SSH_AUTH_SOCK="+filepath.Join(a.dir, "agent"))
	return cmd
}

// try runs a block and returns what it says, all of it.
func (a *alone) try(n netlab.Namespace, where, text string) (string, error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	cmd := a.command(ctx, where, "sh", "-e", "-c", text)
	var out heard
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	if n == (netlab.Namespace{}) {
		err = cmd.Run()
	} else {
		err = n.Run(cmd)
	}
	return out.String(), err
}

func (a *alone) run(n netlab.Namespace, where, text string) string {
	a.t.Helper()
	out, err := a.try(n, where, text)
	if err != nil {
		a.t.Fatalf("on %s: %v\n%s\n%s", where, err, text, out)
	}
	return out
}

// background runs a program until the test ends.
func (a *alone) background(n netlab.Namespace, name string, args ...string) *heard {
	a.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	cmd := a.command(ctx, "gate", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	said := new(heard)
	cmd.Stdout, cmd.Stderr = said, said
	var err error
	if n == (netlab.Namespace{}) {
		err = cmd.Start()
	} else {
		err = n.Start(cmd)
	}
	if err != nil {
		stop()
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // interrupted
		if a.t.Failed() {
			a.t.Logf("%s%s", name, said)
		}
	})
	return said
}

func (a *alone) until(what string, done func() bool) {
	a.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: never", what)
		}
	}
}

func (a *alone) appears(path string) {
	a.t.Helper()
	a.until(path, func() bool { _, err := os.Stat(path); return err == nil })
}

func (a *alone) says(said *heard, text string) {
	a.t.Helper()
	a.until(text, func() bool { return strings.Contains(said.String(), text) })
}

// serveHost is web-1: Debian's sshd with what the page adds to its configuration.
func (a *alone) serveHost() {
	a.t.Helper()
	config := fmt.Sprintf("ListenAddress %s\nHostKey /run/keys/host_key\nAuthorizedKeysFile /run/keys/authorized_keys\nUsePAM no\nPidFile none\n%s",
		netip.AddrPortFrom(netlab.WebTarget, 22), a.read("host/mayfly.conf"))
	a.write(filepath.Join(a.dir, "host", "sshd_config"), config)
	if err := os.Chmod(filepath.Join(a.dir, "host", "authorized_keys"), 0o644); err != nil {
		a.t.Fatal(err)
	}
	a.hostSaid = a.background(a.lab.Target, "sshd: ", "unshare", "--mount", "sh", "-c", aloneSSHD, "sh", filepath.Join(a.dir, "host"))
	a.says(a.hostSaid, "Server listening")
}

// journal writes what web-1's sshd said as journalctl does.
func (a *alone) journal() {
	a.t.Helper()
	var out bytes.Buffer
	for line := range strings.Lines(a.hostSaid.String()) {
		entry, err := json.Marshal(map[string]string{"__REALTIME_TIMESTAMP": fmt.Sprint(time.Now().UnixMicro()), "_HOSTNAME": "web-1", "_UID": "0", "_COMM": "sshd",
			"MESSAGE": strings.TrimRight(line, "\r\n")})
		if err != nil {
			a.t.Fatal(err)
		}
		out.Write(append(entry, '\n'))
	}
	a.write(filepath.Join(a.dir, "gate", "web-1.json"), out.String())
}
