package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/softkey"
)

// passed is a listening socket as a service manager makes it, and a configuration that names its address.
func passed(t *testing.T) (l *net.TCPListener, anna *softkey.Key, config string) {
	t.Helper()
	anna, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	approvers, tr, err := makeTrust()
	if err != nil {
		t.Fatal(err)
	}
	data, err := tr.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	any := plainTCP(t)
	text := "listen = \"" + any.Addr().String() + "\"\ntrust = \"trust.json\"\nbundle = \"bundle.json\"\nhost_key = \"host_key\"\n" +
		"host_certificate = \"host_key-cert.pub\"\naudit = \"audit\"\ncontrol = \"control\"\ndrain_limit = \"10s\"\n"
	config = filepath.Join(dir, "bastion.toml")
	for _, err := range []error{os.WriteFile(filepath.Join(dir, "trust.json"), data, 0o644), writeHostKey(dir),
		writeBundle(dir, "bundle.json", 1, anna, approvers[:2]), os.WriteFile(config, []byte(text), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return any, anna, config
}

// plainTCP listens as systemd does: not for Multipath TCP, as Go would.
func plainTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// activated starts a bastion with the socket as descriptor 3, as a service manager does.
func activated(t *testing.T, l *net.TCPListener, config string) (cmd *exec.Cmd, stderr *said) {
	t.Helper()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The shell knows the process's number before the program begins.
	cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec bastion serve --config "$0"`, config)
	cmd.ExtraFiles = []*os.File{file}
	stderr = &said{grew: make(chan struct{}, 1)}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd, stderr
}

// said is what a process has printed so far, for whoever waits for a line of it.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
	grew chan struct{}
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.grew <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// wait returns once the text was printed.
func (s *said) wait(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.grew:
		case <-ctx.Done():
			t.Fatalf("never said %q:\n%s", text, s)
		}
	}
}

// TestSocketActivation connects while no bastion runs, begins one, and is let in; and again across a restart that drains: who was in stays
// in, and who comes meanwhile waits for the next one. Nobody is refused.
func TestSocketActivation(t *testing.T) {
	l, anna, config := passed(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	connect := func() net.Conn {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	login := func(conn net.Conn) *ssh.Client {
		t.Helper()
		deadline, _ := ctx.Deadline()
		conn.SetDeadline(deadline)
		c, channels, requests, err := ssh.NewClientConn(conn, "bastion", &ssh.ClientConfig{User: "anna",
			Auth: []ssh.AuthMethod{ssh.PublicKeys(anna.Signer(softkey.Always))}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err != nil {
			t.Fatal(err)
		}
		return ssh.NewClient(c, channels, requests)
	}
	early := connect()
	first, log := activated(t, l, config)
	before := login(early)

	if out, err := exec.CommandContext(ctx, "bastion", "status", "--config", config).CombinedOutput(); err != nil || !strings.Contains(string(out), "anna (engineer) SHA256:") {
		t.Errorf("status: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, "bastion", "drain", "--config", config, "--limit", "50s").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "draining: sessions: 1, at most until ") {
		t.Errorf("drain: %v\n%s", err, out)
	}
	meanwhile := connect()
	if _, _, err := before.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Errorf("who was in: %v", err)
	}
	before.Close()
	if err := first.Wait(); err != nil {
		t.Errorf("the first bastion: %v\n%s", err, log)
	}
	second, log := activated(t, l, config)
	after := login(meanwhile)
	// TERM lets who is in go on up to drain_limit; the second cuts.
	if err := second.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	log.wait(ctx, t, "draining: nobody is accepted") // two signals that are pending at once are one
	if _, _, err := after.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Errorf("who was in, after the first signal: %v", err)
	}
	if err := second.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	after.Wait()
	if err := second.Wait(); err != nil {
		t.Errorf("the second bastion: %v\n%s", err, log)
	}
	audit, err := exec.CommandContext(ctx, "bastion", "audit", "tail", "--dir", filepath.Join(filepath.Dir(config), "audit")).CombinedOutput()
	if err != nil || !strings.Contains(string(audit), "stop_at_once") {
		t.Errorf("no stop_at_once in the log:\n%s", audit)
	}
}

// TestSocketOfAnother refuses a socket that is not what bastion.toml says.
func TestSocketOfAnother(t *testing.T) {
	_, _, config := passed(t)
	cmd, stderr := activated(t, plainTCP(t), config)
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "bastion.toml says") || !strings.Contains(stderr.String(), "then ListenStream=127.0.0.1:") {
		t.Errorf("got %v: %s", err, stderr)
	}
}
