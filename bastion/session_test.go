package bastion

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"mayfly/bastion/recording"
	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// sessionFixture is a fixture whose anna has se-1 for recorded sessions and se-2 for jumps.
type sessionFixture struct {
	*fixture
	authority ssh.PublicKey
	reader    *age.X25519Identity
}

func newSessionFixture(t *testing.T) sessionFixture {
	t.Helper()
	f := sessionFixture{fixture: newFixture(t)}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if f.authority, err = ssh.NewPublicKey(public); err != nil {
		t.Fatal(err)
	}
	if f.reader, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	f.config.Session = SessionConfig{CA: f.path("session_ca"), HostCAs: f.path("hosts"), Recordings: f.path("recordings")}
	f.write(f.config.Session.CA, pemBytes(block), 0o600)
	f.write(f.config.Session.HostCAs, []byte("@cert-authority *.lab.internal "+authorized(f.hostCA.PublicKey())+"\n"), 0o644)
	if err := os.Mkdir(f.config.Session.Recordings, 0o700); err != nil {
		t.Fatal(err)
	}
	f.policy.Session = policies.Session{Record: true, Recipients: []string{f.reader.Recipient().String()}, Authority: authorized(f.authority)}
	f.policy.Grants = []policies.Grant{
		{Engineers: []string{"anna"}, Servers: []string{"se-1"}, Ports: []uint16{22}, Session: true},
		{Engineers: []string{"anna"}, Servers: []string{"se-2"}, Ports: []uint16{22}},
		{Engineers: []string{"bert"}, Servers: []string{"nl-1"}, Ports: []uint16{22}},
	}
	f.writeBundle(2)
	return f
}

// read decrypts the one recording that a closing record names, and checks its hash.
func (f sessionFixture) read(r targetRecord) string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.config.Session.Recordings, r.Recording))
	if err != nil {
		f.t.Fatal(err)
	}
	if sum := sha256.Sum256(data); r.SHA256 != hex.EncodeToString(sum[:]) {
		f.t.Errorf("the record's hash %s is not the file's", r.SHA256)
	}
	c, err := recording.Open(bytes.NewReader(data), f.reader)
	if err != nil {
		f.t.Fatal(err)
	}
	var out strings.Builder
	if how, err := c.Dump(&out); err != nil || how != r.Ended {
		f.t.Errorf("got end %q, %v, want %q", how, err, r.Ended)
	}
	return out.String()
}

// server is an SSH server that takes the session authority's certificates as a server of the fleet does. It answers "shell" and "exec"
// by what is given.
func (f sessionFixture) server(address, name string, hostCA ssh.Signer, serve func(channel ssh.Channel, request *ssh.Request)) {
	f.t.Helper()
	host := newSigner(f.t)
	certificate := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{name}, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(constant{}, hostCA); err != nil {
		f.t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(certificate, host)
	if err != nil {
		f.t.Fatal(err)
	}
	checker := ssh.CertChecker{IsUserAuthority: func(key ssh.PublicKey) bool { return bytes.Equal(key.Marshal(), f.authority.Marshal()) },
		SupportedCriticalOptions: []string{"source-address"}}
	config := &ssh.ServerConfig{PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		c, ok := key.(*ssh.Certificate)
		if !ok {
			return nil, errors.New("no certificate")
		}
		life := time.Duration(c.ValidBefore-c.ValidAfter) * time.Second
		if life > 2*time.Minute || len(c.ValidPrincipals) != 1 || len(c.Extensions) != 1 || c.CriticalOptions["source-address"] != "127.0.0.1" || len(c.KeyId) != 16 {
			f.t.Errorf("certificate %+v lives %v", c, life)
		}
		return checker.Authenticate(meta, key)
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
			go func() {
				for r := range requests {
					if r.Type == "exec" && strings.HasPrefix(string(r.Payload[4:]), "refuse") {
						r.Reply(false, nil)
						continue
					}
					if r.Type == "env" {
						channel.Write([]byte("early ")) // before the session has begun
					}
					if r.Type == "shell" || r.Type == "exec" {
						r.Reply(true, nil)
						go serve(channel, r)
						continue
					}
					r.Reply(r.Type != "subsystem", nil)
				}
			}()
		}
	})
}

func exit(channel ssh.Channel, status byte) {
	channel.SendRequest("exit-status", false, []byte{0, 0, 0, status})
	channel.Close()
}

func TestSession(t *testing.T) {
	f := newSessionFixture(t)
	f.server("10.77.0.11:22", "se-1.lab.internal", f.hostCA, func(channel ssh.Channel, r *ssh.Request) {
		fmt.Fprintf(channel, "ran %s\n", r.Payload[4:])
		fmt.Fprint(channel.Stderr(), "a warning\n")
		line := make([]byte, 7)
		io.ReadFull(channel, line)
		fmt.Fprintf(channel, "heard %d bytes\n", len(line))
		exit(channel, 3)
	})
	f.start()
	client := f.login("anna%se-1", f.anna.Signer(softkey.Always))
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader("hunter2"), &out, &errs
	if err := s.RequestPty("xterm-256color", 50, 132, ssh.TerminalModes{}); err != nil {
		t.Error(err)
	}
	if err := s.Setenv("LC_ALL", "C.UTF-8"); err != nil {
		t.Errorf("a language: %v", err)
	}
	if err := s.Setenv("LD_PRELOAD", "x"); err == nil {
		t.Error("any environment variable is passed on")
	}
	if err := s.RequestSubsystem("sftp"); err == nil {
		t.Error("a subsystem was opened")
	}
	if ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil); ok || err != nil {
		t.Errorf("agent: got %t, %v", ok, err)
	}
	err = s.Run("uname -a")
	var status *ssh.ExitError
	if !errors.As(err, &status) || status.ExitStatus() != 3 || out.String() != "early ran uname -a\nheard 7 bytes\n" || errs.String() != "a warning\n" {
		t.Errorf("got %v, %q, %q", err, out.String(), errs.String())
	}
	client.Close()
	r := f.closing()
	if r.User != "anna" || len(r.Targets) != 1 || !r.Targets[0].Session || r.Targets[0].Server != "se-1" || !r.Targets[0].Whole || r.Targets[0].Up != 7 ||
		r.Targets[0].Ended != endTarget || r.Targets[0].Number != 1 || r.Targets[0].Via.Port() == 0 {
		t.Fatalf("record: %+v", r)
	}
	if len(r.Refused) != 2 || r.Refused[0].What != "session subsystem" || r.Refused[1].What != "session auth-agent-req@openssh.com" {
		t.Errorf("refused: %+v", r.Refused)
	}
	text := f.read(r.Targets[0])
	for _, want := range []string{`"width":132`, `"height":50`, `"command":"uname -a"`, `"title":"anna@se-1"`, `xterm-256color`, `early `, `ran uname -a\n`, `a warning\n`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Error("what was typed is in the recording")
	}
}

// Without a terminal nothing shows what goes in, so it is recorded: before the server has it, and byte for byte.
func TestSessionInput(t *testing.T) {
	f := newSessionFixture(t)
	f.server("10.77.0.11:22", "se-1.lab.internal", f.hostCA, func(channel ssh.Channel, _ *ssh.Request) {
		io.Copy(io.Discard, channel)
		exit(channel, 0)
	})
	f.start()
	client := f.login("anna%se-1", f.anna.Signer(softkey.Always))
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("rm -rf /srv\n\x80\xff")
	if err := s.Run("bash -s >/dev/null; echo \xe4"); err != nil {
		t.Error(err)
	}
	client.Close()
	r := f.closing()
	if len(r.Targets) != 1 || !r.Targets[0].Whole {
		t.Fatalf("record: %+v", r)
	}
	input := base64.StdEncoding.EncodeToString([]byte("rm -rf /srv\n\x80\xff"))
	command := base64.StdEncoding.EncodeToString([]byte("bash -s >/dev/null; echo \xe4"))
	if text := f.read(r.Targets[0]); !strings.Contains(text, `"kind":"I","data":"`+input) || !strings.Contains(text, `"command_bytes":"`+command) {
		t.Errorf("no input or command in:\n%s", text)
	}
}

// A command that is too long for the recording's header is refused, as is all that comes after a session has begun or failed to.
func TestSessionBegins(t *testing.T) {
	f := newSessionFixture(t)
	f.server("10.77.0.11:22", "se-1.lab.internal", f.hostCA, func(channel ssh.Channel, _ *ssh.Request) {
		io.Copy(io.Discard, channel)
		exit(channel, 0)
	})
	f.start()
	client := f.login("anna%se-1", f.anna.Signer(softkey.Always))
	session := func() *ssh.Session {
		s, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	exec := func(s *ssh.Session, command string) bool {
		ok, err := s.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{command}))
		if err != nil {
			t.Error(err)
		}
		return ok
	}

	s := session()
	if exec(s, "true"+strings.Repeat(" ", maxCommand)+"; scp -t /") {
		t.Error("a command ran that the recording cannot hold")
	}
	longest := "true" + strings.Repeat(" ", maxCommand-5) + "z"
	if !exec(s, longest) {
		t.Error("the longest command was refused")
	}
	if exec(s, "again") {
		t.Error("a second command ran in a session")
	}
	if err := s.RequestPty("xterm", 1, 1, ssh.TerminalModes{}); err == nil {
		t.Error("a terminal, and with it input that is not recorded, after the command has begun")
	}
	s.Close()

	s = session()
	if exec(s, "refuse") || exec(s, "another") {
		t.Error("a command ran after one that the server had refused: its recording is another's")
	}
	s.Close()
	client.Close()
	r := f.closing()
	if len(r.Refused) != 1 || r.Refused[0].Reason != commandTooLong || r.Refused[0].What != "session exec" {
		t.Errorf("refused: %+v", r.Refused)
	}
	if len(r.Targets) != 2 {
		t.Fatalf("record: %+v", r)
	}
	var all string
	for _, target := range r.Targets {
		all += f.read(target)
	}
	if !strings.Contains(all, `"command":"`+longest) || !strings.Contains(all, `"command":"refuse"`) || strings.Contains(all, "xterm") {
		t.Error("commands are not whole")
	}
	if list, err := os.ReadDir(f.path("recordings")); err != nil || len(list) != 2 {
		t.Errorf("%d recordings, %v, want 2", len(list), err)
	}
}

func TestSessionRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		user   string
		change func(f sessionFixture)
		want   policies.Reason
	}{
		"a grant for jumps": {"anna+se-2", func(sessionFixture) {}, policies.SessionNotGranted},
		"no grant":          {"anna%nl-1", func(sessionFixture) {}, policies.TargetNotGranted},
		"no such server":    {"anna%se-9", func(sessionFixture) {}, policies.TargetUnknown},
		"no server named":   {"anna", func(sessionFixture) {}, channelRefused},
		"off in the policy": {"anna%se-1", func(f sessionFixture) {
			f.policy.Session = policies.Session{}
			f.policy.Grants[0].Session = false
			f.writeBundle(2)
		}, channelRefused},
		"off in bastion.toml": {"anna", func(f sessionFixture) { f.config.Session = SessionConfig{} }, channelRefused},
		"another authority": {"anna%se-1", func(f sessionFixture) {
			f.policy.Session.Authority = authorized(newSigner(f.t).PublicKey())
			f.writeBundle(2)
		}, channelRefused},
		"another host authority": {"anna%se-1", func(f sessionFixture) { f.server("10.77.0.11:22", "se-1.lab.internal", newSigner(f.t), nil) }, hostKeyRefused},
		"a server that takes no certificate of ours": {"anna%se-1", func(f sessionFixture) {
			f.authority = newSigner(f.t).PublicKey()
			f.server("10.77.0.11:22", "se-1.lab.internal", f.hostCA, nil)
		}, sessionLoginRefused},
		"another server's key": {"anna%se-1", func(f sessionFixture) { f.server("10.77.0.11:22", "se-2.lab.internal", f.hostCA, nil) }, hostKeyRefused},
		"a revoked host authority": {"anna%se-1", func(f sessionFixture) {
			f.write(f.config.Session.HostCAs, []byte("@cert-authority * "+authorized(f.hostCA.PublicKey())+"\n@revoked * "+authorized(f.hostCA.PublicKey())+"\n"), 0o644)
		}, hostKeyRefused},
		"a server that is gone": {"anna%se-1", func(f sessionFixture) { f.mu.Lock(); defer f.mu.Unlock(); clear(f.targets) }, targetUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSessionFixture(t)
			f.server("10.77.0.11:22", "se-1.lab.internal", f.hostCA, func(c ssh.Channel, _ *ssh.Request) { exit(c, 0) })
			tt.change(f)
			f.start()
			client := f.login(tt.user, f.anna.Signer(softkey.Always))
			if _, err := client.NewSession(); err == nil || !strings.Contains(err.Error(), string(tt.want)) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			client.Close()
			if r := f.closing(); len(r.Refused) != 1 || r.Refused[0].Reason != tt.want {
				t.Errorf("refused: %+v, want %s", r.Refused, tt.want)
			}
			if list, err := os.ReadDir(f.path("recordings")); err != nil || len(list) != 0 {
				t.Errorf("recordings %v, %v", list, err)
			}
		})
	}
}

// A grant for recorded sessions is no way around them.
func TestSessionOnly(t *testing.T) {
	f := newSessionFixture(t)
	f.target("10.77.0.11:22", echo)
	f.start()
	for _, user := range []string{"anna", "anna%se-1"} {
		client := f.login(user, f.anna.Signer(softkey.Always))
		if _, err := client.Dial("tcp", "se-1:22"); err == nil || !strings.Contains(err.Error(), string(policies.SessionOnly)) {
			t.Errorf("%s: got %v", user, err)
		}
		client.Close()
		f.closing()
	}
	// Whoever has a session's name is still decided upon by the name before the sign.
	if _, err := f.client("bert%se-1", f.anna.Signer(softkey.Always)); err == nil {
		t.Error("anna's key let bert in")
	}
	if r := f.closing(); r.User != "bert" || r.Reason != policies.KeyUnknown {
		t.Errorf("record: %+v", r)
	}
}

// A recording that is full, or that cannot be made, ends the session.
func TestSessionCannotBeRecorded(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(f sessionFixture, s *Server)
		want   policies.Reason
	}{
		"full":              {func(_ sessionFixture, s *Server) { s.recording.Size = 1000 }, recordingFull},
		"no space":          {func(_ sessionFixture, s *Server) { s.recording.Reserve = 1 << 62 }, recordingFull},
		"no more directory": {func(f sessionFixture, _ *Server) { os.RemoveAll(f.path("recordings")) }, recordingFailed},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSessionFixture(t)
			f.server("10.77.0.11:22", "se-1.lab.internal", f.hostCA, func(channel ssh.Channel, _ *ssh.Request) {
				for {
					if _, err := io.WriteString(channel, strings.Repeat("line\n", 20)); err != nil {
						return
					}
				}
			})
			f.startWith(func(s *Server) { tt.change(f, s) })
			client := f.login("anna%se-1", f.anna.Signer(softkey.Always))
			s, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Run("yes"); err == nil {
				t.Error("the session ended well")
			}
			client.Close()
			r := f.closing()
			if len(r.Targets) != 1 || r.Targets[0].Ended != endRecording || r.Targets[0].Reason != tt.want {
				t.Fatalf("record: %+v", r)
			}
			if name == "full" {
				if text := f.read(r.Targets[0]); len(text) > 4000 {
					t.Errorf("recorded %d bytes", len(text))
				}
			}
		})
	}
}

// TestSessionCut sees that a policy that takes the grant away ends the session, and that its recording is whole.
func TestSessionCut(t *testing.T) {
	f := newSessionFixture(t)
	f.server("10.77.0.11:22", "se-1.lab.internal", f.hostCA, func(channel ssh.Channel, _ *ssh.Request) { fmt.Fprint(channel, "$ ") })
	f.start()
	client := f.login("anna%se-1", f.anna.Signer(softkey.Always))
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	f.policy.Version++
	f.policy.Grants = f.policy.Grants[1:]
	f.writeBundle(2)
	f.reload <- os.Interrupt
	if err := s.Wait(); err == nil {
		t.Error("the session ended well")
	}
	client.Close()
	r := f.closing()
	if len(r.Targets) != 1 || r.Targets[0].Ended != endPolicy || r.Targets[0].Reason != policies.TargetNotGranted || !r.Targets[0].Whole {
		t.Fatalf("record: %+v", r)
	}
	f.read(r.Targets[0])
}

func TestSplitUser(t *testing.T) {
	for text, want := range map[string][2]string{"anna": {"anna", ""}, "anna%se-1": {"anna", "se-1"}, "anna+se-1": {"anna", "se-1"},
		"%se-1": {"", "se-1"}, "anna%": {"anna", ""}, "a%b+c": {"a", "b+c"}, "": {}} {
		if user, server := splitUser(text); user != want[0] || server != want[1] {
			t.Errorf("%q: got %q, %q", text, user, server)
		}
	}
}

// realSSHD is the machine's OpenSSH server for anna's account, which exists in its mount namespace only.
const realSSHD = `set -e
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
(grep -v -e ^sshd: -e ^anna: /etc/passwd; echo sshd:x:101:65534::/run/sshd:/bin/false; echo anna:x:4242:65534::/:/bin/sh) > /run/passwd
(grep -v -e ^anna: /etc/shadow; echo 'anna:*:::::::') > /run/shadow
chmod 600 /run/shadow
mount --bind /run/passwd /etc/passwd
mount --bind /run/shadow /etc/shadow
exec "$1" -D -e -f "$2"
`

// TestSessionOpenSSH is the machine's ssh, through the bastion, to the machine's sshd, with a terminal.
func TestSessionOpenSSH(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: sshd logs in another user, in a mount namespace")
	}
	sshd := "/usr/sbin/sshd"
	if _, err := os.Stat(sshd); err != nil {
		t.Skip("needs sshd (openssh-server), which testenv test installs")
	}
	f := newSessionFixture(t)
	dir, err := os.MkdirTemp("", "mayfly-session-") // readable by sshd's unprivileged half
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"se-1.lab.internal"}, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(constant{}, f.hostCA); err != nil {
		t.Fatal(err)
	}
	f.write(filepath.Join(dir, "key"), pemBytes(block), 0o600)
	f.write(filepath.Join(dir, "key-cert.pub"), ssh.MarshalAuthorizedKey(certificate), 0o644)
	f.write(filepath.Join(dir, "ca.pub"), ssh.MarshalAuthorizedKey(f.authority), 0o644)
	f.write(filepath.Join(dir, "principals"), []byte("anna\n"), 0o644)
	f.write(filepath.Join(dir, "sshd_config"), fmt.Appendf(nil, `
ListenAddress 127.0.0.1:%d
HostKey %[2]s/key
HostCertificate %[2]s/key-cert.pub
PidFile none
TrustedUserCAKeys %[2]s/ca.pub
AuthorizedPrincipalsFile %[2]s/principals
AuthorizedKeysFile none
PubkeyAcceptedAlgorithms ssh-ed25519-cert-v01@openssh.com
AuthenticationMethods publickey
UsePAM no
StrictModes no
DisableForwarding yes
LogLevel VERBOSE
`, port, dir), 0o600)
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "/bin/sh", "-c", realSSHD, "sh", sshd, filepath.Join(dir, "sshd_config"))
	said := &safeBuffer{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	said.wait(t, "Server listening")
	f.mu.Lock()
	f.targets[netip.MustParseAddrPort("10.77.0.11:22")] = fmt.Sprintf("127.0.0.1:%d", port)
	f.mu.Unlock()
	f.start()

	run := f.openSSH(softkey.Always)
	command := run("-tt", "anna%se-1@bastion", "echo I am $(id -un); tty; stty size; exit 5")
	command.Env = append(command.Env, "TERM=xterm", "LC_ALL=C.UTF-8")
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 5 || !strings.Contains(string(out), "I am anna\r\n") || !strings.Contains(string(out), "/dev/pts/") {
		t.Fatalf("got %v\n%s\nsshd: %s", err, out, said)
	}
	r := f.closing()
	if r.User != "anna" || len(r.Targets) != 1 || r.Targets[0].Server != "se-1" || !r.Targets[0].Session {
		t.Fatalf("record: %+v", r)
	}
	if text := f.read(r.Targets[0]); !strings.Contains(text, `I am anna\r\n`) || !strings.Contains(text, `"TERM":"xterm"`) {
		t.Errorf("recorded:\n%s", text)
	}
	if !strings.Contains(said.String(), "ID "+r.Connection) {
		t.Errorf("sshd does not name the connection %s:\n%s", r.Connection, said)
	}

	// Nothing but a terminal: scp and sftp, and forwardings, are refused.
	for _, args := range [][]string{{"-s", "anna%se-1@bastion", "sftp"}, {"-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "anna%se-1@bastion", "true"}} {
		if out, err := run(args...).CombinedOutput(); err == nil {
			t.Errorf("%q: got %s", args, out)
		}
		if r := f.closing(); len(r.Refused) == 0 {
			t.Errorf("%q: record %+v", args, r)
		}
	}
}

// safeBuffer is what a process says while it runs.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *safeBuffer) wait(t *testing.T, text string) {
	t.Helper()
	limit, poll := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer poll.Stop()
	for !strings.Contains(b.String(), text) {
		select {
		case <-limit:
			t.Fatalf("%q never came:\n%s", text, b.String())
		case <-poll.C:
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
