package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	sshagent "golang.org/x/crypto/ssh/agent"

	"mayfly/internal/hint"
)

// TestListen: the socket is the user's alone, replaces one that nobody listens on, and no other file.
func TestListen(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "new", "agent.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "listens on") || hint.Of(err) == "" {
		t.Errorf("beside a living agent: %v", err)
	}
	l.SetUnlinkOnClose(false) // as when it is killed
	l.Close()
	if l, err = Listen(path); err != nil {
		t.Fatalf("after a dead agent: %v", err)
	}
	l.Close()
	write(t, path, "precious", 0o600)
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("over a file: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Errorf("the file: %q, %v", data, err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(open, "agent.sock")); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("in a directory that is open to others: %v", err)
	}
}

// TestListenOnce: of many agents that start at once where a dead one left its socket, one listens, and is reached; its end leaves nothing of it.
func TestListenOnce(t *testing.T) {
	path := filepath.Join(socketDir(t), "agent.sock")
	for range 20 {
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		var (
			starting sync.WaitGroup
			mu       sync.Mutex
			living   []*net.UnixListener
		)
		begin := make(chan struct{})
		for range 16 {
			starting.Go(func() {
				<-begin
				l, err := Listen(path)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					living = append(living, l)
				case !strings.Contains(err.Error(), "listens on"):
					t.Error(err)
				}
			})
		}
		close(begin)
		starting.Wait()
		if len(living) != 1 {
			t.Fatalf("%d agents listen on one path", len(living))
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		living[0].Close()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Fatalf("what it leaves: %v", err)
		}
	}
}

// activatedChild is an agent that a service manager starts.
func activatedChild() {
	l, err := Inherited()
	if err != nil || l == nil || os.Getenv("LISTEN_FDS") != "" {
		fmt.Fprintf(os.Stderr, "inherited %v, %v (%s)\n", l, err, hint.Of(err))
		os.Exit(1)
	}
	if err := New(Config{Cards: &fakeCards{}, Log: discard()}).Serve(context.Background(), l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// activate starts the test program as a service manager would, with a socket as its descriptor 3.
func activate(t *testing.T, socket *os.File, count string) (*exec.Cmd, *logged) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=`+count+` exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=activated")
	cmd.ExtraFiles = []*os.File{socket}
	said := &logged{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, said
}

// TestActivation: an agent serves the socket that it is handed, which outlives it; another kind of socket is refused.
func TestActivation(t *testing.T) {
	path := filepath.Join(socketDir(t), "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 2 {
		conn, err := net.Dial("unix", path) // before the agent is there
		if err != nil {
			t.Fatal(err)
		}
		cmd, said := activate(t, file, "1")
		if _, err := sshagent.NewClient(conn).List(); err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		conn.Close()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcpFile, err := tcp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	for _, tt := range []struct {
		socket *os.File
		count  string
		want   string
	}{{tcpFile, "1", "no unix socket"}, {file, "2", "want 1"}} {
		cmd, said := activate(t, tt.socket, tt.count)
		if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), tt.want) || !strings.Contains(said.String(), "bastion-agent.socket") {
			t.Errorf("got %v: %s, want %s", err, said, tt.want)
		}
	}
}
