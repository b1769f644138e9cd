package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// sshdServe is sshdCheck's sshd, serving.
const sshdServe = `set -e
mount -t tmpfs none /run
mkdir /run/sshd
(grep -v ^sshd: /etc/passwd; echo sshd:x:101:65534::/run/sshd:/bin/false; echo deploy:*:65534:65534::/:/bin/sh; echo mayfly-test-ana:*:54322:54322::/:/bin/sh) > /run/passwd
mount --bind /run/passwd /etc/passwd
exec "$1" -D -e -f "$2"
`

// realSSHD is Debian's sshd on a loopback address, in a mount namespace that has an account deploy.
type realSSHD struct {
	t       *testing.T
	root    string
	dir     string
	address string
	heard   io.Writer // hears what it says as well
}

func newRealSSHD(t *testing.T) *realSSHD {
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace with the image's accounts")
	}
	for _, tool := range []string{"apt-get", "dpkg", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s to get Debian's sshd: %v", tool, err)
		}
	}
	s := &realSSHD{t: t, root: unpackSSHD(t), dir: t.TempDir()}
	if err := os.Chmod(filepath.Dir(s.dir), 0o755); err != nil { // sshd reads authorized keys as their user
		t.Fatal(err)
	}
	writeHostKey(t, s.dir)
	if err := os.MkdirAll(filepath.Join(s.dir, "authorized_keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	l.Close()
	return s
}

func (s *realSSHD) write(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// start serves a configuration, with the test's own port and directory, until the test ends.
func (s *realSSHD) start(config []byte) {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.NewReplacer("Port 22\n", "Port "+port+"\n", "StrictModes yes\n", "StrictModes no\n").Replace(string(config)) // the test's directory lies in /tmp
	file := filepath.Join(s.dir, "sshd_config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "/bin/sh", "-c", sshdServe, "sh", filepath.Join(s.root, sshdPath), file)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+s.root+"/usr/lib/x86_64-linux-gnu:"+s.root+"/lib/x86_64-linux-gnu")
	var said bytes.Buffer
	cmd.Stderr = &said
	if s.heard != nil {
		cmd.Stderr = io.MultiWriter(&said, s.heard)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // killed
		s.t.Logf("sshd said:\n%s", said.Bytes())
	})
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-poll.C {
		if conn, err := net.Dial("tcp", s.address); err == nil {
			conn.Close()
			return
		}
	}
	s.t.Fatal("sshd does not listen")
}

// run logs in as deploy and asks for a command; "" asks for a shell.
func (s *realSSHD) run(signer ssh.Signer, command string) (string, error) {
	client, err := ssh.Dial("tcp", s.address, &ssh.ClientConfig{User: "deploy", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 20 * time.Second})
	if err != nil {
		return "", err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	if command == "" {
		var out bytes.Buffer
		session.Stdout = &out
		if err := session.Shell(); err != nil {
			return "", err
		}
		err := session.Wait()
		return out.String(), err
	}
	out, err := session.Output(command)
	return string(out), err
}

// TestSSHDRefusesRevoked has the rendered configuration keep a key out as soon as the list of revoked keys has it, and every key where
// the list is gone.
func TestSSHDRefusesRevoked(t *testing.T) {
	s := newRealSSHD(t)
	key, err := softkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	who := engineer{name: "deploy", keys: []string{key.Authorized()}}
	s.write("authorized_keys/deploy", authorizedKeys(who, local))
	s.write("revoked_keys", policies.Revocations{}.Bytes())
	a, err := sshdAlgorithms(policies.Policy{SSH: policies.SSH{Level: policies.PQPreferred}})
	if err != nil {
		t.Fatal(err)
	}
	s.start(sshdConfiguration(sshdSettings{listen: local[0], algorithms: a, dir: s.dir, engineers: []engineer{who}, bastions: local, verify: true}))

	touched, verified := key.Signer(softkey.Always), key.Signer(softkey.Verified)
	if out, err := s.run(verified, "echo one day"); err != nil || out != "one day\n" {
		t.Fatalf("got %q, %v", out, err)
	}
	if _, err := s.run(touched, "true"); err == nil {
		t.Error("a signature without user verification is accepted")
	}
	spec := filepath.Join(s.dir, "spec")
	s.write("spec", []byte("sha256: "+key.Authorized()+"\n"))
	if out, err := exec.Command("ssh-keygen", "-q", "-k", "-f", filepath.Join(s.dir, "list"), spec).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "list"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := policies.NewRevocations(data)
	if err != nil {
		t.Fatal(err)
	}
	s.write("revoked_keys", list.Bytes())
	if _, err := s.run(verified, "true"); err == nil {
		t.Error("a revoked key is accepted")
	}
	s.write("revoked_keys", nil)
	if _, err := s.run(verified, "true"); err != nil {
		t.Errorf("a list of nothing: %v", err)
	}
	if err := os.Remove(filepath.Join(s.dir, "revoked_keys")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(verified, "true"); err == nil {
		t.Error("without the list a key is accepted")
	}
}

// TestRobotOnHost asks a real sshd for a robot's commands, and for others that look like them.
func TestRobotOnHost(t *testing.T) {
	s := newRealSSHD(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	commands := []string{"echo hello", `printf '%s|' "a b" 'c"d' \\ "it's"`, `echo ';;' esac; echo two`, `echo *) \`, `echo "$0 $#"`, `echo [a-z]`}
	robot := policies.Robot{Name: "deploy", Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), Commands: commands}
	config := fmt.Sprintf("Port 22\nListenAddress 127.0.0.1\nHostKey %[1]s/host_key\nPidFile none\nAuthorizedKeysFile %[1]s/authorized_keys/%%u\nStrictModes yes\nUsePAM no\nUseDNS no\nLogLevel VERBOSE\n", s.dir)
	local := netip.MustParseAddr("127.0.0.1")
	s.write("authorized_keys/deploy", []byte(robot.AuthorizedKey([]netip.Addr{netip.MustParseAddr("192.0.2.2"), local})+"\n"))
	s.start([]byte(config))
	for _, command := range commands {
		want, wantErr := exec.Command("/bin/sh", "-c", command).Output()
		got, err := s.run(signer, command)
		if got != string(want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: got %q, %v, want %q, %v", command, got, err, want, wantErr)
		}
	}
	for _, command := range []string{"", "echo", "echo hello ", " echo hello", "echo hello; id", "echo hello\nid", "id", "echo b", "*", "echo [x]", "esac; id", `echo "$0 $#" x`} {
		var exit *ssh.ExitError
		if got, err := s.run(signer, command); got != "" || !errors.As(err, &exit) || exit.ExitStatus() != 126 {
			t.Errorf("%q: got %q, %v, want exit 126", command, got, err)
		}
	}
	// From elsewhere the key opens nothing.
	s.write("authorized_keys/deploy", []byte(robot.AuthorizedKey([]netip.Addr{netip.MustParseAddr("192.0.2.2")})+"\n"))
	if got, err := s.run(signer, "echo hello"); err == nil {
		t.Errorf("from elsewhere: got %q", got)
	}
}
