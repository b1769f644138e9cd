package bastion

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/softkey"
)

// openSSH prepares a known_hosts file with the host CA and an agent socket with anna's key, and returns a function that runs
// the machine's ssh with them.
func (f *fixture) openSSH(touch softkey.Touch) func(args ...string) *exec.Cmd {
	f.t.Helper()
	path, err := exec.LookPath("ssh")
	if err != nil {
		f.t.Skip("no OpenSSH client on this machine: apt-get install openssh-client")
	}
	f.write(f.path("known_hosts"), []byte("@cert-authority * "+authorized(f.hostCA.PublicKey())+"\n"), 0o600)
	f.write(f.path("anna.pub"), []byte(f.anna.Authorized()+"\n"), 0o644)
	_, port, err := net.SplitHostPort(f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(f.path("ssh_config"), fmt.Appendf(nil, `
Host *
  UserKnownHostsFile %[1]s/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  IdentityFile %[1]s/anna.pub
  IdentitiesOnly yes
  BatchMode yes
  User anna
  LogLevel VERBOSE
Host bastion
  HostName 127.0.0.1
  HostKeyAlias bastion
  Port %[2]s
Host se-1
  ProxyJump bastion
`, f.dir, port), 0o600)
	socket := f.path("agent.sock")
	l, err := softkey.Listen(socket)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- softkey.NewAgent(f.anna.Signer(touch)).Serve(ctx, l) }()
	f.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
	return func(args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		f.t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, path, append([]string{"-F", f.path("ssh_config")}, args...)...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		return cmd
	}
}

// TestOpenSSHWriteThrough is `ssh -W` of the machine's OpenSSH to a TCP target.
func TestOpenSSHWriteThrough(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	f.start()
	cmd := f.openSSH(softkey.Always)("-W", "se-1:22", "bastion")
	sent := bytes.Repeat([]byte("one day "), 50_000)
	cmd.Stdin = bytes.NewReader(sent)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes, %v, want %d\n%s", len(got), err, len(sent), stderr.Bytes())
	}
	r := f.closing()
	if r.Outcome != "accepted" || r.Ended != endClient || len(r.Targets) != 1 || r.Up != int64(len(sent)) || r.Down != int64(len(sent)) {
		t.Errorf("record: %+v", r)
	}
	if !strings.Contains(r.Client, "OpenSSH") || r.Cipher == "" || r.KeyExchange == "" {
		t.Errorf("client %q, cipher %q, key exchange %q", r.Client, r.Cipher, r.KeyExchange)
	}
	t.Logf("OpenSSH chose %s, %s", r.KeyExchange, r.Cipher)
}

// TestOpenSSHJump is `ssh -J` to an SSH server behind the bastion, both checked against the host CA.
func TestOpenSSHJump(t *testing.T) {
	f := newFixture(t)
	f.sshTarget("10.77.0.11:22", "se-1")
	f.start()
	cmd := f.openSSH(softkey.Always)("se-1", "true")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil || string(got) != "se-1 ran true\n" {
		t.Fatalf("got %q, %v\n%s", got, err, stderr.Bytes())
	}
	if r := f.closing(); len(r.Targets) != 1 || r.Targets[0].Server != "se-1" || r.Targets[0].Up == 0 || r.Targets[0].Down == 0 {
		t.Errorf("record: %+v", r)
	}
}

func TestOpenSSHRefused(t *testing.T) {
	for _, test := range []struct {
		name  string
		touch softkey.Touch
		args  []string
		want  string
	}{
		{"no touch", softkey.Never, []string{"-W", "se-1:22", "bastion"}, string(keyNoTouch)},
		{"no key", softkey.Always, []string{"-o", "PubkeyAuthentication=no", "-W", "se-1:22", "bastion"}, string(noKey)},
		{"root", softkey.Always, []string{"-l", "root", "-W", "se-1:22", "bastion"}, "user_root"},
		{"session", softkey.Always, []string{"bastion", "id"}, string(channelRefused)},
		{"remote forward", softkey.Always, []string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "bastion"}, string(requestRefused)},
		{"port", softkey.Always, []string{"-W", "se-1:23", "bastion"}, "port_not_granted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.target("10.77.0.11:22", echo)
			f.start()
			out, err := f.openSSH(test.touch)(test.args...).CombinedOutput()
			if err == nil {
				t.Errorf("ssh succeeded: %s", out)
			}
			r := f.closing()
			got := string(r.Reason)
			if r.Outcome == "accepted" && len(r.Refused) > 0 {
				got = string(r.Refused[0].Reason)
			}
			if got != test.want {
				t.Errorf("got %s, want %s; ssh said:\n%s", got, test.want, out)
			}
		})
	}
}

// sshTarget makes an address lead to an SSH server that runs nothing but says what it would.
func (f *fixture) sshTarget(address, name string) {
	f.t.Helper()
	host := newSigner(f.t)
	certificate := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{name}, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(constant{}, f.hostCA); err != nil {
		f.t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(certificate, host)
	if err != nil {
		f.t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if authorized(key) != f.anna.Authorized() {
			return nil, fmt.Errorf("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(certified)
	f.target(address, func(conn *net.TCPConn) {
		server, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		defer server.Close()
		go ssh.DiscardRequests(requests)
		for nc := range channels {
			channel, requests, err := nc.Accept()
			if err != nil {
				return
			}
			for r := range requests {
				if r.Type != "exec" {
					r.Reply(false, nil)
					continue
				}
				r.Reply(true, nil)
				io.WriteString(channel, name+" ran "+string(r.Payload[4:])+"\n")
				channel.SendRequest("exit-status", false, make([]byte, 4))
				channel.Close()
			}
		}
	})
}
