package softkey

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"mayfly/internal/hint"
)

func newKey(t *testing.T) *Key {
	t.Helper()
	key, err := New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestSignatures sees the SSH library accept a touched signature and refuse one without touch.
func TestSignatures(t *testing.T) {
	key := newKey(t)
	message := []byte("one day")
	for _, test := range []struct {
		touch Touch
		want  string
	}{{Always, ""}, {Never, "user presence"}} {
		s := key.Signer(test.touch)
		var last []byte
		for range 2 {
			signature, err := s.Sign(rand.Reader, message)
			if err != nil {
				t.Fatal(err)
			}
			err = key.Public().Verify(message, signature)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("touch %s: got %v, want %q", test.touch, err, test.want)
			}
			if bytes.Compare(signature.Rest[1:], last) <= 0 {
				t.Errorf("the counter does not rise: %x after %x", signature.Rest[1:], last)
			}
			last = signature.Rest[1:]
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	key, path := newKey(t), filepath.Join(t.TempDir(), "anna")
	if err := key.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || got.Authorized() != key.Authorized() {
		t.Fatalf("loaded %v, %v", got, err)
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil || string(public) != key.Authorized()+" software-test-key\n" {
		t.Errorf("public half: %q, %v", public, err)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), "SOFTWARE") {
		t.Errorf("the file does not say what it is: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || hint.Of(err) == "" {
		t.Errorf("junk was loaded: %v", err)
	}
	if err := key.Save(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil {
		t.Error("a key that others can read was loaded")
	}
}

// TestAgentSocket lists and signs through the socket, with our client and with OpenSSH's, and sees everything else refused.
func TestAgentSocket(t *testing.T) {
	key := newKey(t)
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	if _, err := Listen(socket); err == nil {
		t.Error("two agents on one socket")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewAgent(key.Signer(Always)).Serve(ctx, l) }()

	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	keys, err := client.List()
	if err != nil || len(keys) != 1 || keys[0].Comment != Comment {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	signature, err := client.Sign(key.Public(), []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Public().Verify([]byte("m"), signature); err != nil {
		t.Error(err)
	}
	if _, err := client.Sign(newKey(t).Public(), []byte("m")); err == nil {
		t.Error("signed with a key that it does not hold")
	}
	if err := client.RemoveAll(); err == nil {
		t.Error("keys can be removed")
	}
	if path, err := exec.LookPath("ssh-add"); err != nil {
		t.Log("no ssh-add on this machine: not tried with OpenSSH's client")
	} else {
		cmd := exec.Command(path, "-L")
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != key.Authorized()+" "+Comment+"\n" {
			t.Errorf("ssh-add -L: %q, %v", out, err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(socket); err == nil {
		t.Error("a file was replaced")
	}
}

func TestTouchFlag(t *testing.T) {
	var touch Touch
	for text, ok := range map[string]bool{"always": true, "never": true, "verified": true, "": false, "Always": false} {
		if err := touch.UnmarshalText([]byte(text)); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

var _ ssh.Signer = (&Key{}).Signer(Always)
