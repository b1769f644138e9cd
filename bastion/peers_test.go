package bastion

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// systemPython is Debian's own, which has its python3- packages.
const systemPython = "/usr/bin/python3"

const asyncsshScript = `
import asyncio, asyncssh, sys
async def main(port, key):
    async with asyncssh.connect('127.0.0.1', port=int(port), username='deploy', client_keys=[key], known_hosts=None, agent_path=None) as c:
        r, w = await c.open_connection('web-1', 22)
        w.write(b'one day'); w.write_eof()
        sys.stdout.write((await r.read()).decode())
asyncio.run(main(*sys.argv[1:]))
`

const paramikoScript = `
import paramiko, sys
c = paramiko.SSHClient()
c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
c.connect('127.0.0.1', port=int(sys.argv[1]), username='deploy', key_filename=sys.argv[2], allow_agent=False, look_for_keys=False)
ch = c.get_transport().open_channel('direct-tcpip', ('web-1', 22), ('127.0.0.1', 1))
ch.sendall(b'one day'); ch.shutdown_write()
sys.stdout.write(ch.makefile().read().decode())
c.close()
`

// TestPeers has Debian's SSH clients log in at both levels and reach a host through the bastion, or be refused for the reason that the
// manual gives. They bring a robot's software key, since OpenSSH alone can ask a security key for a signature. docs/testing.md has what was seen.
func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	const none = noCommonAlgorithm
	for _, peer := range []struct {
		name            string
		needs           []string // programs or files
		prepare         func(f *fixture)
		args            func(f *fixture, port string) []string
		preferred, only policies.Reason // allowed, or why not
	}{
		{name: "openssh", needs: []string{"ssh"}, preferred: policies.Allowed, only: postQuantumSSH(t), args: func(f *fixture, port string) []string {
			return []string{"ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
				"-i", f.path("robot"), "-p", port, "-W", "web-1:22", "deploy@127.0.0.1"}
		}},
		// It finds out by itself that nothing is in common, and leaves.
		{name: "plink", needs: []string{"plink", "puttygen"}, preferred: policies.Allowed, only: leftEarly, prepare: func(f *fixture) {
			f.ran("puttygen", f.path("robot"), "-O", "private", "-o", f.path("robot.ppk"))
		}, args: func(f *fixture, port string) []string {
			return []string{"plink", "-batch", "-ssh", "-noagent", "-i", f.path("robot.ppk"), "-hostkey", ssh.FingerprintSHA256(f.hostKey.PublicKey()), "-P", port,
				"-nc", "web-1:22", "deploy@127.0.0.1"}
		}},
		{name: "dropbear", needs: []string{"dbclient", "dropbearconvert"}, preferred: none, only: none, prepare: func(f *fixture) {
			f.ran("dropbearconvert", "openssh", "dropbear", f.path("robot"), f.path("robot.dropbear"))
		}, args: func(f *fixture, port string) []string {
			return []string{"dbclient", "-y", "-y", "-i", f.path("robot.dropbear"), "-p", port, "-B", "web-1:22", "deploy@127.0.0.1"}
		}},
		{name: "asyncssh", needs: []string{"/usr/lib/python3/dist-packages/asyncssh"}, preferred: policies.Allowed, only: none, args: func(f *fixture, port string) []string {
			return []string{systemPython, "-W", "ignore", "-c", asyncsshScript, port, f.path("robot")}
		}},
		{name: "paramiko", needs: []string{"/usr/lib/python3/dist-packages/paramiko"}, preferred: none, only: none, args: func(f *fixture, port string) []string {
			return []string{systemPython, "-W", "ignore", "-c", paramikoScript, port, f.path("robot")}
		}},
	} {
		for level, want := range map[policies.Level]policies.Reason{policies.PQPreferred: peer.preferred, policies.PQOnly: peer.only} {
			t.Run(peer.name+"/"+string(level), func(t *testing.T) {
				for _, need := range peer.needs {
					if _, err := exec.LookPath(need); err != nil {
						if _, err := os.Stat(need); err != nil {
							t.Skipf("needs %s: go run ./testenv test installs it", need)
						}
					}
				}
				f := robotHost(t, level)
				if peer.prepare != nil {
					peer.prepare(f)
				}
				_, port, err := net.SplitHostPort(f.address)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				args := peer.args(f, port)
				cmd := exec.CommandContext(ctx, args[0], args[1:]...)
				cmd.Env = append(os.Environ(), "HOME="+f.dir, "SSH_AUTH_SOCK=")
				cmd.Stdin = strings.NewReader("one day")
				var said bytes.Buffer
				cmd.Stderr = &said
				out, err := cmd.Output()
				r := f.closing()
				if want == leftEarly && r.Reason == noCommonAlgorithm {
					want = noCommonAlgorithm // both sides find out: whichever says so first
				}
				if r.Reason != want {
					t.Fatalf("got %s (%s), want %s; it said: %v: %s", r.Reason, r.Detail, want, err, said.Bytes())
				}
				t.Logf("%s: %s: %s, %s, %s", r.Client, level, r.Reason, r.KeyExchange, r.Cipher)
				if want != policies.Allowed {
					if err == nil {
						t.Errorf("refused, and it ended well: %s", said.Bytes())
					}
					return
				}
				if string(out) != "one day" || r.Outcome != "accepted" || r.User != "deploy" || r.Identity != "robot" || len(r.Targets) != 1 || r.Up != 7 || r.Down != 7 {
					t.Errorf("got %q, record %+v; it said: %v: %s", out, r, err, said.Bytes())
				}
			})
		}
	}
}

// postQuantumSSH is what pq-only says to this machine's OpenSSH: it has the key exchange since 9.9.
func postQuantumSSH(t *testing.T) policies.Reason {
	if out, err := exec.Command("ssh", "-Q", "kex").Output(); err == nil && bytes.Contains(out, []byte(ssh.KeyExchangeMLKEM768X25519)) {
		return policies.Allowed
	}
	return noCommonAlgorithm
}

func (f *fixture) ran(args ...string) {
	f.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// robotHost is a serving bastion with a robot, whose key is in the file robot, and its host web-1.
func robotHost(t *testing.T, level policies.Level) *fixture {
	t.Helper()
	f := newFixture(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	f.write(f.path("robot"), pem.EncodeToMemory(block), 0o600)
	f.fleet.Servers = append(f.fleet.Servers, inventory.Server{Name: "web-1", Role: inventory.RoleHost, Address: netip.MustParsePrefix("10.77.0.31/32")})
	f.policy.SSH.Level = level
	f.policy.Robots = []policies.Robot{{Name: "deploy", Public: authorized(signer.PublicKey()), Source: netip.MustParsePrefix("127.0.0.1/32"),
		Servers: []string{"web-1"}, Ports: []uint16{22}, Commands: []string{"uptime"}}}
	f.writeBundle(2)
	f.target("10.77.0.31:22", echo)
	f.start()
	return f
}

// TestSSHAudit has Debian's ssh-audit judge both levels: by the policy file of the level, and by its own opinion, in which nothing may fail.
// Its version has no subsets in policies, so each level has its own file.
func TestSSHAudit(t *testing.T) {
	if _, err := exec.LookPath("ssh-audit"); err != nil || testing.Short() {
		t.Skip("needs ssh-audit: go run ./testenv test installs it")
	}
	for _, level := range []policies.Level{policies.PQPreferred, policies.PQOnly} {
		t.Run(string(level), func(t *testing.T) {
			f := robotHost(t, level)
			_, port, err := net.SplitHostPort(f.address)
			if err != nil {
				t.Fatal(err)
			}
			audit := func(args ...string) (string, int) {
				cmd := exec.CommandContext(t.Context(), "ssh-audit", append(append([]string{"-n"}, args...), "-p", port, "127.0.0.1")...)
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState == nil {
					t.Fatal(err)
				}
				f.forgive() // its connections leave early, by the dozen
				return string(out), cmd.ProcessState.ExitCode()
			}
			if out, code := audit("-P", fmt.Sprintf("testdata/ssh-audit.%s.policy", level)); code != 0 || !strings.Contains(out, "Passed") {
				t.Errorf("the policy: exit %d: %s", code, out)
			}
			out, code := audit()
			if code == 1 || code == 3 || strings.Contains(out, "[fail]") || !strings.Contains(out, ssh.KeyExchangeMLKEM768X25519) {
				t.Errorf("its own opinion: exit %d: %s", code, out)
			}
			t.Log(out)
			// Another engineer has not noticed.
			client := f.login("anna", f.anna.Signer(softkey.Always))
			client.Close()
		})
	}
}
