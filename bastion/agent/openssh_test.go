package agent

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// need skips where a program of the machine is not there; testenv test installs them.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s, which testenv test installs", p)
		}
	}
}

// run runs a program with the agent's socket.
func (f *fixture) run(dir string, words ...string) (string, error) {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), words[0], words[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "SSH_AUTH_SOCK=" + f.socket, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (f *fixture) must(dir string, words ...string) string {
	f.t.Helper()
	out, err := f.run(dir, words...)
	if err != nil {
		f.t.Fatalf("%q: %v\n%s\nagent:\n%s", words, err, out, f.log)
	}
	return out
}

func write(t *testing.T, path, text string, perm os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
}

// sshdOnce is an sshd for one connection, on its standard input, in a mount namespace with an account of its own. PATH may lack it.
const sshdOnce = `set -e
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
(grep -v -e ^sshd: -e ^anna: /etc/passwd; echo sshd:x:101:65534::/run/sshd:/bin/false; echo anna:x:4242:65534::/:/bin/sh) > /run/passwd
(grep -v -e ^anna: /etc/shadow; echo 'anna:*:::::::') > /run/shadow
chmod 600 /run/shadow
mount --bind /run/passwd /etc/passwd
mount --bind /run/shadow /etc/shadow
exec /usr/sbin/sshd -i -e -f "$1" 2>>"$1.log"
`

// world is a directory with an sshd and a client's configuration for it.
type world struct {
	dir  string
	host ssh.Signer
	ca   ssh.Signer
}

// newWorld has an sshd that takes these keys of anna's, and a certificate of its host key for bastion.lab.
func newWorld(t *testing.T, keys ...ssh.PublicKey) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sshd logs in another user, in a mount namespace")
	}
	need(t, "ssh", "unshare")
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip("needs sshd (openssh-server), which testenv test installs")
	}
	w := &world{dir: socketDir(t), ca: newHostKey(t)}
	if err := os.Chmod(w.dir, 0o755); err != nil { // for sshd's unprivileged half
		t.Fatal(err)
	}
	private := mustKey(t)
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	w.host = host
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(w.dir, name) }
	write(t, at("key"), string(pem.EncodeToMemory(block)), 0o600)
	write(t, at("key-cert.pub"), line(certify(t, host.PublicKey(), w.ca, "bastion.lab"))+"\n", 0o644)
	var authorized string
	for _, k := range keys {
		authorized += line(k) + "\n"
	}
	write(t, at("authorized"), authorized, 0o644)
	write(t, at("sshd_config"), strings.ReplaceAll(`HostKey DIR/key
HostCertificate DIR/key-cert.pub
AuthorizedKeysFile DIR/authorized
AuthenticationMethods publickey
PidFile none
UsePAM no
StrictModes no
LogLevel VERBOSE
`, "DIR", w.dir), 0o600)
	write(t, at("sshd.sh"), sshdOnce, 0o644)
	write(t, at("plain"), "plain.lab "+line(host.PublicKey())+"\n", 0o644)
	write(t, at("certified"), "@cert-authority *.lab "+line(w.ca.PublicKey())+"\n", 0o644)
	return w
}

// ssh is the beginning of a command line.
func (w *world) ssh(hosts string, words ...string) []string {
	all := []string{"ssh", "-F", "none", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + filepath.Join(w.dir, hosts),
		"-o", "GlobalKnownHostsFile=/dev/null", "-o", "ProxyCommand=unshare --mount /bin/sh " + filepath.Join(w.dir, "sshd.sh") + " " + filepath.Join(w.dir, "sshd_config")}
	if hosts == "plain" {
		all = append(all, "-o", "HostKeyAlgorithms=ssh-ed25519")
	}
	return append(all, words...)
}

// TestOpenSSHLogin: the machine's ssh logs in with a card's key at the machine's sshd, bound to its session, which is verified; the person is
// shown the host by its certificate or its plain key.
func TestOpenSSHLogin(t *testing.T) {
	cards := &fakeCards{}
	w := newWorld(t, cards.plug(t, 1).public())
	f := start(t, func(c *Config) {
		c.Cards, c.RequireBinding, c.RefuseForwarded = cards, true, true
		c.KnownHosts = []string{filepath.Join(w.dir, "plain"), filepath.Join(w.dir, "certified")}
	})
	if got := f.must(w.dir, w.ssh("certified", "anna@bastion.lab", "id -un")...); got != "anna\n" {
		t.Errorf("got %q", got)
	}
	f.log.wait(t, "signed", "log in as anna at bastion.lab (certificate of bastion.lab by "+fingerprint(w.ca.PublicKey())+")", "TEST card 1")
	f.log.wait(t, "bound", "forwarded=false")
	f.must(w.dir, w.ssh("plain", "anna@plain.lab", "true")...)
	f.log.wait(t, "signed", "log in as anna at plain.lab (host key "+fingerprint(w.host.PublicKey())+")")

	// scp is ssh with another service on top.
	write(t, filepath.Join(w.dir, "file"), "text", 0o644)
	scp := w.ssh("certified", "-O", filepath.Join(w.dir, "file"), "anna@bastion.lab:/tmp/"+filepath.Base(w.dir)+"-copy")
	scp[0], scp[3] = "scp", "-q"
	f.must(w.dir, scp...)
	if err := os.Remove("/tmp/" + filepath.Base(w.dir) + "-copy"); err != nil {
		t.Error(err)
	}
}

// TestOpenSSHForwarded: from a host that the agent is lent to. ssh says so of itself, and the agent refuses, or says for whom it signs.
func TestOpenSSHForwarded(t *testing.T) {
	for _, refuse := range []bool{true, false} {
		cards := &fakeCards{}
		card := cards.plug(t, 1)
		w := newWorld(t, card.public())
		f := start(t, func(c *Config) {
			c.Cards, c.RequireBinding, c.RefuseForwarded = cards, true, refuse
			c.KnownHosts = []string{filepath.Join(w.dir, "certified")}
		})
		public := filepath.Join(w.dir, "card.pub")
		write(t, public, line(card.public())+"\n", 0o644)
		out, err := f.run(w.dir, w.ssh("certified", "-A", "anna@bastion.lab", "ssh-add -l && echo text | ssh-keygen -Y sign -n file -f "+public)...)
		if !strings.Contains(out, "test 1 (ECDSA)") {
			t.Fatalf("the agent was not forwarded: %v\n%s", err, out)
		}
		if signed := strings.Contains(out, "BEGIN SSH SIGNATURE"); signed == refuse {
			t.Errorf("refuse %v: got %v\n%s", refuse, err, out)
		}
		if refuse {
			f.log.wait(t, "refused", string(ReasonForwarded), "sign a file, through the agent that was forwarded to bastion.lab (certificate of bastion.lab")
		} else {
			f.log.wait(t, "signed", "sign a file, asked for by bastion.lab (certificate of bastion.lab", "which this agent is forwarded to")
		}
	}
}

// TestOpenSSHTools: ssh-add, ssh-keygen -Y and git commit -S, with what they say when the agent refuses.
func TestOpenSSHTools(t *testing.T) {
	need(t, "ssh-add", "ssh-keygen", "git")
	f := start(t, func(c *Config) { c.RequireBinding, c.RefuseForwarded = true, true })
	card := f.cards.plug(t, 1)
	dir := t.TempDir()
	public, allowed := filepath.Join(dir, "card.pub"), filepath.Join(dir, "allowed")
	write(t, public, line(card.public())+"\n", 0o644)
	write(t, allowed, "anna@lab "+line(card.public())+"\n", 0o644)

	if got := f.must(dir, "ssh-add", "-l"); !strings.Contains(got, ssh.FingerprintSHA256(card.public())+" test 1 (ECDSA)") {
		t.Errorf("ssh-add -l: %s", got)
	}
	if got := f.must(dir, "ssh-add", "-L"); strings.TrimSpace(got) != line(card.public())+" test 1" {
		t.Errorf("ssh-add -L: %s", got)
	}
	// ssh-add -T asks for a signature of random data, which a raw signing oracle would give.
	if out, err := f.run(dir, "ssh-add", "-T", public); err == nil {
		t.Errorf("ssh-add -T: %s", out)
	}
	f.log.wait(t, "refused", string(ReasonUnknownData))
	for _, words := range [][]string{{"ssh-add", "-D"}, {"ssh-add", "-d", public}} {
		if out, err := f.run(dir, words...); err == nil {
			t.Errorf("%q: %s", words, out)
		}
	}

	write(t, filepath.Join(dir, "file"), "text", 0o644)
	f.must(dir, "ssh-keygen", "-Y", "sign", "-n", "mayfly-release", "-f", public, filepath.Join(dir, "file"))
	f.must(dir, "/bin/sh", "-c", "ssh-keygen -Y verify -n mayfly-release -I anna@lab -f allowed -s file.sig < file")
	f.log.wait(t, "signed", "sign a mayfly-release statement")

	f.must(dir, "git", "init", "-q", "repo")
	repo := filepath.Join(dir, "repo")
	for _, set := range [][2]string{{"user.name", "Anna"}, {"user.email", "anna@lab"}, {"gpg.format", "ssh"}, {"user.signingkey", public}, {"gpg.ssh.allowedSignersFile", allowed}} {
		f.must(repo, "git", "config", set[0], set[1])
	}
	f.must(repo, "git", "commit", "-q", "-S", "--allow-empty", "-m", "signed")
	if got := f.must(repo, "git", "verify-commit", "--raw", "HEAD"); !strings.Contains(got, `Good "git" signature for anna@lab`) {
		t.Errorf("git verify-commit: %s", got)
	}
	f.log.wait(t, "signed", "sign a git commit or tag")

	// ssh-keygen -s -U has a key of the agent certify others: data of no kind that is shown.
	write(t, filepath.Join(dir, "host.pub"), line(newHostKey(t).PublicKey())+"\n", 0o644)
	if out, err := f.run(dir, "ssh-keygen", "-q", "-s", public, "-U", "-I", "x", "-h", filepath.Join(dir, "host.pub")); err == nil {
		t.Errorf("certified: %s", out)
	}
	cards := f.cards
	f = start(t, func(c *Config) { c.AllowUnknownData, c.Cards = true, cards })
	f.must(dir, "ssh-keygen", "-q", "-s", public, "-U", "-I", "x", "-h", filepath.Join(dir, "host.pub"))
}

// TestOpenSSHChain: a real ssh-agent's keys come after ours, log in where it lets them, and it gets the session's binding: its key is for one
// host alone (ssh-add -h), which it can only know by it.
func TestOpenSSHChain(t *testing.T) {
	need(t, "ssh-agent", "ssh-add", "ssh-keygen")
	dir := socketDir(t)
	socket := filepath.Join(dir, "other")
	cmd := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, func() error { _, err := os.Stat(socket); return err })

	f := start(t, func(c *Config) {
		c.Chain, c.RequireBinding = []string{filepath.Join(dir, "nobody"), socket}, true
	})
	f.cards.plug(t, 1)
	other := &fixture{t: t, socket: socket, log: f.log}
	key := filepath.Join(dir, "id")
	other.must(dir, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "software", "-f", key)
	data, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, public)
	other.must(dir, "ssh-add", "-q", "-H", filepath.Join(w.dir, "certified"), "-h", "anna@bastion.lab", key)
	if got := strings.Split(strings.TrimSpace(f.must(dir, "ssh-add", "-l")), "\n"); len(got) != 2 || !strings.Contains(got[0], "test 1") || !strings.Contains(got[1], "software") {
		t.Errorf("ssh-add -l: %q", got)
	}
	f.log.wait(t, "chained agent left out", "nobody")
	f.must(dir, w.ssh("certified", "-i", key+".pub", "-o", "IdentitiesOnly=yes", "anna@bastion.lab", "true")...)
	f.log.wait(t, "signed by a chained agent")
	if out, err := f.run(dir, w.ssh("plain", "-i", key+".pub", "-o", "IdentitiesOnly=yes", "anna@plain.lab", "true")...); err == nil {
		t.Errorf("the chained agent let its key go to a host that it is not for: %s", out)
	}
	a, _ := f.client()
	if _, err := a.Sign(newHostKey(t).PublicKey(), fileData("git")); err == nil {
		t.Error("signed with a key that nobody has")
	}
	if reason, _ := why(t, a); reason != ReasonUnknownKey {
		t.Errorf("got %s", reason)
	}
}

// TestChainedOnly: without any card service, the chained agent's keys still work.
func TestChainedOnly(t *testing.T) {
	inner := start(t, nil)
	card := inner.cards.plug(t, 1)
	f := start(t, func(c *Config) { c.Chain = []string{inner.socket} })
	f.cards.err = os.ErrNotExist
	host := newHostKey(t)
	a, _ := f.client()
	if keys, err := a.List(); err != nil || len(keys) != 1 {
		t.Fatalf("got %v, %v", keys, err)
	}
	if _, err := a.Extension(extensionBind, bindContents(t, host.PublicKey(), host, sessionID(1), false)); err != nil {
		t.Fatal(err)
	}
	data := loginData(sessionID(1), "anna", card.public(), nil)
	sig, err := a.Sign(card.public(), data)
	if err != nil {
		t.Fatal(err)
	}
	if err := card.public().Verify(data, sig); err != nil {
		t.Error(err)
	}
	inner.log.wait(t, "signed", "log in as anna at a host that known_hosts does not have") // it was told the session

	// A client that leaves while the chained agent waits is seen to there, too.
	card.withTouch()
	_, leave := signing(t, f, card.public())
	<-card.waiting
	leave()
	inner.log.wait(t, "refused", string(ReasonClientGone))
	f.log.wait(t, "refused", string(ReasonClientGone))
}
