package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/fleetctl/users"
	"mayfly/internal/pki"
	"mayfly/policies/request"
)

// Users of these tests: numbers that the machine knows nothing of.
const (
	testSigner   = 54101
	testServe    = 54102
	testCheckin  = 54103
	testGroup    = 54100
	testStranger = 54104
)

// apart is a signed fleet whose signer, serve and checkin are users of their own, in a place that all of them get to.
type apart struct {
	*caFleet
	program string
}

// newApart needs root.
func newApart(t *testing.T) *apart {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: three users")
	}
	top, err := os.MkdirTemp("", "mf-apart-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	a := &apart{program: filepath.Join(top, "fleetctl")}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	copied, err := os.OpenFile(a.program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(copied, self); err != nil {
		t.Fatal(err)
	}
	if err := copied.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(top, "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a.caFleet = &caFleet{t: t, dir: dir, fleet: labFleet(t), policy: caPolicyTOML[:strings.Index(caPolicyTOML, "[[grant]]")] + labRotation}
	a.write(users.File, fmt.Appendf(nil, "signer = \"%d\"\nserve = \"%d\"\ncheckin = \"%d\"\ngroup = \"%d\"\n", testSigner, testServe, testCheckin, testGroup))
	a.found("--users")
	return a
}

// labRotation is what a fleet with servers that are rebuilt needs.
const labRotation = `
[rotation]
max_age = "24h"
max_parallel = 2
drain_limit = "20s"
boot_limit = "3m"
bake = "2s"
retries = 1
`

// labFleet is the scripts' fleet on free ports.
func labFleet(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/lab/fleet.toml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, name := range []string{"BOOT_PORT", "JOIN_PORT", "CHECKIN_PORT"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, name, port)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

// as runs the program as a user, with the group of signer and serve where in says so.
func (a *apart) as(ctx context.Context, uid int, in bool, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, a.program, args...)
	gid := uint32(uid)
	if in {
		gid = testGroup
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: gid}, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	return cmd
}

// start runs one until the test ends, and waits for a line of its talk.
func (a *apart) start(cmd *exec.Cmd, line string) {
	a.t.Helper()
	talk, err := cmd.StderrPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	ready, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		var all strings.Builder
		said := false
		for s := bufio.NewScanner(talk); s.Scan(); {
			all.WriteString(s.Text() + "\n")
			if !said && strings.Contains(s.Text(), line) {
				said = true
				ready <- ""
			}
		}
		if !said {
			ready <- all.String()
		}
	}()
	a.t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			a.t.Error(err)
		}
		<-ended
		_ = cmd.Wait() // interrupted
	})
	select {
	case ended := <-ready:
		if ended != "" {
			a.t.Fatalf("%v ended: %s", cmd.Args[1:], ended)
		}
	case <-time.After(2 * time.Minute):
		a.t.Fatalf("%v never said %q", cmd.Args[1:], line)
	}
}

// TestSeparateUsers runs signer, serve and checkin as three users. All that they need works, and every attempt on what is another's is refused.
func TestSeparateUsers(t *testing.T) {
	a := newApart(t)
	ctx := t.Context()
	a.start(a.as(ctx, testSigner, true, "signer", "--dir", a.dir), "users=separate")
	a.start(a.as(ctx, testServe, true, "serve", "--dir", a.dir), "serve: ready")
	a.start(a.as(ctx, testCheckin, false, "checkin", "--dir", a.dir), "checkin: ready")

	// Serve has the list signed, and checkin may read it.
	list := filepath.Join(a.dir, "public", "list.json")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		if _, err := os.Stat(list); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("serve published no list")
		}
	}
	if out, err := a.as(ctx, testServe, true, "certify", "--dir", a.dir, "--bastion", "bastion-1", "--key", a.key("gate.pub"), "--out", filepath.Join(a.dir, "gate-cert.pub")).CombinedOutput(); err != nil {
		t.Errorf("a verb as serve's user: %v: %s", err, out)
	}
	if out, err := exec.CommandContext(ctx, a.program, "ca", "publish", "--dir", a.dir).CombinedOutput(); err != nil {
		t.Errorf("ca publish, typed by root: %v: %s", err, out)
	}

	for _, own := range []struct {
		uid int
		in  bool
		do  string
	}{{testServe, true, "echo x > own && rm own && cat public/list.json public/ledger/checkpoint store.db > /dev/null"}, {testSigner, true, "cat signer/tls-ca.key bundle.json > /dev/null"},
		{testCheckin, false, "cat public/list.json bundle.json trust.json > /dev/null"}} {
		cmd := a.as(ctx, own.uid, own.in)
		cmd.Path, cmd.Args, cmd.Dir = "/bin/sh", []string{"sh", "-c", own.do}, a.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("user %d: %s: %v: %s", own.uid, own.do, err, out)
		}
	}

	// What is another's: files.
	if err := os.WriteFile(filepath.Join(a.dir, "secrets.key"), []byte("x"), 0o600); err != nil { // as if root had sealed one
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		uid  int
		in   bool
		do   string // a shell's command, which has to fail
	}{
		{"serve reads the keys", testServe, true, "cat signer/tls-ca.key"},
		{"serve lists the keys", testServe, true, "ls signer"},
		{"serve takes the keys away", testServe, true, "mv signer signer-old"},
		{"serve puts another trust policy", testServe, true, "echo x > trust.json"},
		{"serve replaces the trust policy", testServe, true, "echo x > t && mv t trust.json"},
		{"serve replaces the bundle", testServe, true, "echo x > t && mv t bundle.json"},
		{"serve names other users", testServe, true, "echo x > t && mv t users.toml"},
		{"serve takes the socket away", testServe, true, "rm signer.sock"},
		{"serve replaces the ledger", testServe, true, "mv public/ledger public/old"},
		{"serve replaces the ledger's checkpoint", testServe, true, "echo x > t && mv t public/ledger/checkpoint"},
		{"serve writes the operators' CA", testServe, true, "echo x > t && mv t operators-ca.pem"},
		{"signer reads the store", testSigner, true, "cat store.db"},
		{"signer writes the store", testSigner, true, "echo x >> store.db"},
		{"signer replaces the store", testSigner, true, "echo x > t2 && mv t2 store.db"},
		{"signer replaces the list", testSigner, true, "echo x > t2 && mv t2 public/list.json"},
		{"signer reads what is the orders' record", testSigner, true, "ls orders"},
		{"checkin reads the keys", testCheckin, false, "cat signer/list-key"},
		{"checkin reads the store", testCheckin, false, "cat store.db"},
		{"checkin replaces the list", testCheckin, false, "echo x > public/list.json"},
		{"checkin makes a file", testCheckin, false, "echo x > new"},
		{"checkin makes a public file", testCheckin, false, "echo x > public/new"},
		{"checkin reads BMCs' passwords", testCheckin, false, "cat secrets.key"},
		{"a stranger makes a file", testStranger, false, "echo x > new"},
	} {
		cmd := a.as(ctx, tt.uid, tt.in)
		cmd.Path, cmd.Args, cmd.Dir = "/bin/sh", []string{"sh", "-c", tt.do}, a.dir
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%s: it worked: %s", tt.name, out)
		}
	}

	// What is another's: processes and verbs.
	for _, tt := range []struct {
		name string
		uid  int
		in   bool
		args []string
		want string
	}{
		{"serve as signer", testServe, true, []string{"signer"}, "wrong_user"},
		{"checkin as signer", testCheckin, false, []string{"signer"}, "wrong_user"},
		{"checkin as serve", testCheckin, false, []string{"serve"}, "wrong_user"},
		{"signer as serve", testSigner, true, []string{"serve"}, "wrong_user"},
		{"serve as checkin", testServe, true, []string{"checkin"}, "wrong_user"},
		{"a stranger as checkin", testStranger, false, []string{"checkin"}, "wrong_user"},
		{"checkin has a bastion's key certified", testCheckin, false, []string{"certify", "--bastion", "bastion-1", "--key", a.key("gate.pub"), "--out", "/nowhere"}, "caller_refused"},
		{"signer's user has one certified", testSigner, true, []string{"certify", "--bastion", "bastion-1", "--key", a.key("gate.pub"), "--out", "/nowhere"}, "caller_refused"},
		{"signer seals a secret", testSigner, true, []string{"secret", "seal", "x"}, "wrong_user"},
	} {
		cmd := a.as(ctx, tt.uid, tt.in, append(tt.args[:1:1], insertDir(tt.args[1:], a.dir)...)...)
		cmd.Stdin = strings.NewReader("secret\n")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: got %v: %s; want %s", tt.name, err, out, tt.want)
		}
	}
}

// insertDir puts --dir behind a verb's second word, where it has one.
func insertDir(args []string, dir string) []string {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return append([]string{args[0], "--dir", dir}, args[1:]...)
	}
	return append([]string{"--dir", dir}, args...)
}

// key writes a public host key.
func (a *apart) key(name string) string {
	a.t.Helper()
	path := a.write(name, []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILmuPo8wAvzfd4IoqljYGIPIeq7tC8CdADuyro7FYkRI\n"))
	if err := os.Chmod(path, 0o644); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// TestMutatedPermissions changes one owner or mode at a time: doctor finds it, the process whose it concerns does not start, and --fix mends it.
func TestMutatedPermissions(t *testing.T) {
	a := newApart(t)
	ctx := t.Context()
	if err := os.WriteFile(filepath.Join(a.dir, "secrets.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.fleetctl(0, "doctor", "--dir", a.dir, "--fix")
	for _, tt := range []struct {
		name, path string
		uid        int
		mode       os.FileMode // 0: the owner is changed
	}{
		{"the keys are others' to read", "signer", testSigner, 0o755},
		{"a key is others' to write", "signer/tls-ca.key", testSigner, 0o622},
		{"a key is serve's", "signer/ticket-key", testServe, 0},
		{"the keys are serve's", "signer", testServe, 0},
		{"the trust policy is serve's", "trust.json", testServe, 0},
		{"the bundle is everybody's to write", "bundle.json", 0, 0o666},
		{"the directory is everybody's to write", ".", 0, 0o777 | os.ModeSticky},
		{"the directory is not sticky", ".", 0, 0o775},
		{"the directory is serve's", ".", testServe, 0},
		{"the public directory is not sticky", "public", 0, 0o775},
		{"the ledger is serve's", "public/ledger", testServe, 0},
		{"the operators' CA is serve's", "operators-ca.pem", testServe, 0},
		{"passwords are others' to read", "secrets.key", testServe, 0o644},
	} {
		path := filepath.Join(a.dir, tt.path)
		var err error
		if tt.mode == 0 {
			err = os.Lchown(path, tt.uid, testGroup)
		} else {
			err = os.Chmod(path, tt.mode)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, talk := a.fleetctl(3, "doctor", "--dir", a.dir)
		if !strings.Contains(talk, users.WrongLayout) {
			t.Errorf("%s: doctor says %s", tt.name, talk)
		}
		role := "signer"
		if tt.path == "secrets.key" {
			role = "serve"
		}
		out, err := exec.CommandContext(ctx, a.program, role, "--dir", a.dir).CombinedOutput()
		if err == nil || !strings.Contains(string(out), users.WrongLayout) && !strings.Contains(string(out), "permission denied") {
			t.Errorf("%s: %s started, or failed otherwise: %v: %s", tt.name, role, err, out)
		}
		if tt.mode == 0 { // what another user has put there is nobody's to have by a repair
			_, talk := a.fleetctl(1, "doctor", "--dir", a.dir, "--fix")
			if !strings.Contains(talk, "nobody says what is in it") {
				t.Errorf("%s: doctor --fix says %s", tt.name, talk)
			}
			if info, err := os.Lstat(path); err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != tt.uid {
				t.Errorf("%s: doctor --fix has given it away: %v, %v", tt.name, info, err)
			}
			if err := os.Lchown(path, 0, testGroup); err != nil {
				t.Fatal(err)
			}
		}
		a.fleetctl(0, "doctor", "--dir", a.dir, "--fix")
	}
	// A name of the table that leads elsewhere, or is root's file under a second name, takes nothing of root's away.
	elsewhere := filepath.Join(t.TempDir(), "roots")
	if err := os.WriteFile(elsewhere, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	machines := filepath.Join(a.dir, "machines")
	if err := os.MkdirAll(machines, 0o700); err != nil {
		t.Fatal(err)
	}
	a.fleetctl(0, "doctor", "--dir", a.dir, "--fix")
	for name, lay := range map[string]func(string, string) error{"symlink": os.Symlink, "hard link": os.Link} {
		path := filepath.Join(machines, "console")
		if err := lay(elsewhere, path); err != nil {
			t.Fatal(err)
		}
		code := 0
		if name == "hard link" {
			code = 1
		}
		a.fleetctl(code, "doctor", "--dir", a.dir, "--fix")
		if info, err := os.Lstat(elsewhere); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: root's file became %v, %v", name, info, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []os.FileMode{0o666, 0o664} { // who could write it could name himself
		if err := os.Chmod(filepath.Join(a.dir, users.File), mode); err != nil {
			t.Fatal(err)
		}
		if _, talk := a.fleetctl(1, "doctor", "--dir", a.dir); !strings.Contains(talk, "root's alone") {
			t.Errorf("users.toml with mode %04o: doctor says %s", mode, talk)
		}
	}
}

// TestPageCertificate: the operators' CA certifies an engineer's own key for the page, and the fleet's other CA does not count there.
func TestPageCertificate(t *testing.T) {
	f := newCAFleet(t)
	key, csr, err := pki.NewOperatorKey("alice")
	if err != nil {
		t.Fatal(err)
	}
	_ = key
	file := f.write("page.csr", pemOf("CERTIFICATE REQUEST", csr))
	out := filepath.Join(f.dir, "page.pem")
	_, talk := f.fleetctl(0, "page-certificate", "alice", "--dir", f.dir, "--csr", file, "--out", out)
	if !strings.Contains(talk, "nobody had to sign") {
		t.Errorf("talk: %s", talk)
	}
	data, err := os.ReadFile(out)
	if err != nil || !bytes.HasPrefix(data, []byte("-----BEGIN CERTIFICATE-----")) {
		t.Errorf("got %q, %v", data, err)
	}
	f.fleetctl(3, "page-certificate", "mallory", "--dir", f.dir, "--csr", file, "--out", out)
	f.fleetctl(2, "page-certificate", "alice", "--dir", f.dir, "--csr", file, "--out", out, "--for", "13h")
	f.fleetctl(1, "page-certificate", "alice", "--dir", f.dir, "--csr", filepath.Join(f.dir, "trust.json"), "--out", out)
	if _, err := signer.PageOrder("alice", csr, time.Hour); err != nil {
		t.Error(err)
	}
	if _, err := signer.PageOrder("alice", []byte(rand.Text()), time.Hour); err == nil {
		t.Error("a request of junk: got nil, want an error")
	}
	if got := request.Page("alice", strings.Repeat("0", 64), time.Hour); got.Subject != "alice" {
		t.Errorf("got %v", got)
	}
}
