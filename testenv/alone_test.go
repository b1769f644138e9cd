package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

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

// aloneGate is the gate: what the page changes there is its own. It says so, and waits to be entered.
const aloneGate = `set -e
cp -a /etc "$1/etc"
mkdir -p "$1/var/lib" "$1/usr/local/bin"
chmod 755 "$1/etc" "$1/var/lib"
rm -f "$1"/etc/ssh/sshd_config.d/*
for d in etc var/lib usr/local/bin; do mount --bind "$1/$d" "/$d"; done
echo ready
exec sleep 3600
`

// aloneEngineer is the engineer's machine, where alice has a home.
const aloneEngineer = `set -e
cp /etc/passwd "$1/passwd"
echo "alice:x:54324:54324::$1/home:/bin/sh" >> "$1/passwd"
mount --bind "$1/passwd" /etc/passwd
chown -R 54324:54324 "$1/home"
echo ready
exec sleep 3600
`

// aloneTools stand for what the test has not: scp to a machine that is a directory here, and security keys, which are software.
var aloneTools = map[string]string{
	"scp": `# Arguments of the form gate:PATH lie below the gate's root, and what is copied there is root's.
args=
for a in "$@"; do case $a in -*) ;; gate:*) args="$args $DIR/gate${a#gate:}" ;; *) args="$args $a" ;; esac; done
exec cp -r $args
`,
	"ssh-keygen": `case " $* " in
*" ed25519-sk "*) while [ "$1" != -f ]; do shift; done; cp "$DIR/keys/$2.pub" "$2.pub"; exec cp "$DIR/keys/handle" "$2" ;;
esac
exec /usr/bin/ssh-keygen "$@"
`,
	"ssh-add": `for a in "$@"; do case $a in -*) ;; *) test -f "$a" && test -f "$a.pub" ;; esac; done
`,
}

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

// TestBastionAlone does what docs/bastion-alone.md says, word for word, in the lab's namespaces: the gate in the core, with directories and
// users of its own that the page's commands make, and its services as their units say; web-1 with Debian's sshd as the target; the
// engineer as the client. systemd itself is not there: the test starts what a systemctl line names.
func TestBastionAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	for _, program := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen", "unshare", "nsenter", "setpriv", "systemd-sysusers", "systemd-tmpfiles", "systemd-socket-activate"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: apt-get install openssh-server openssh-client util-linux systemd: %v", program, err)
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
	a := &alone{t: t, dir: dir, lab: lab, running: map[string]*running{}}
	a.prepare()
	a.gate = a.machine(lab.Core, "gate", aloneGate)
	a.engineer = a.machine(lab.Client, "engineer", aloneEngineer)

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
		kind, place, text := b[1], b[2], a.keyed(b[3])
		ran[kind+" "+place]++
		switch {
		case kind == "sh" && place == "gate":
			if a.hostSaid != nil {
				a.journal()
			}
			a.onGate(text)
		case kind == "sh" && place == "admin":
			a.run("admin", text)
			a.handOut()
		case kind == "sh" && place == "engineer":
			a.serveHost()
			if out := a.login(text); out != "one day\n" {
				t.Errorf("the engineer reads %q", out)
			}
		case kind == "toml" || kind == "text" || kind == "ini":
			switch rest, home := strings.CutPrefix(place, "~/"); {
			case home:
				place = filepath.Join("admin", rest)
			case filepath.IsAbs(place):
				place = filepath.Join("gate", place)
			default:
				place = filepath.Join(map[string]string{"toml": "admin", "text": "host"}[kind], place)
			}
			a.write(filepath.Join(dir, place), text)
		default:
			t.Errorf("a block %s %s that nobody runs", kind, place)
		}
	}
	if ran["sh admin"] != 3 || ran["sh gate"] != 4 || ran["sh engineer"] != 1 {
		t.Errorf("ran %v", ran)
	}
	a.promises()
}

// promises is what the page says besides.
func (a *alone) promises() {
	t := a.t
	// root's "ca rotate" left the CA to its user: it certifies, also when it is started again, and the engineer has the new known_hosts.
	if known := a.read("admin/office.known_hosts"); strings.Count(known, "@cert-authority gate.office.internal,gate ") != 2 || !strings.Contains(known, "\nweb-1.office.internal,web-1 ") {
		t.Errorf("known_hosts after `ca rotate`:\n%s", known)
	}
	before := a.read("gate/var/lib/mayfly-bastion-host/host_key-cert.pub")
	a.systemctl("restart", "mayfly-ca.service")
	a.systemctl("start", "mayfly-certify.service")
	if a.read("gate/var/lib/mayfly-bastion-host/host_key-cert.pub") == before {
		t.Error("there is no other certificate")
	}
	const login = "ssh -F ~/.ssh/office.conf web-1 'echo one day'"
	if out := a.login(login); out != "one day\n" {
		t.Errorf("after `ca rotate` the engineer reads %q", out)
	}
	// root may ask for the firewall's list.
	if out := a.run("gate", "bastion nft --config /etc/mayfly-bastion/bastion.toml"); !strings.Contains(out, "198.51.100.0/24") {
		t.Errorf("bastion nft: %s", out)
	}
	// The two ways to the gate do not meet, and what the bastion holds makes no certificates.
	if out := a.run("admin", "ssh -G -F .ssh/config gate"); !strings.Contains(out, "\nport 2200\n") || !strings.Contains(out, "hostname 10.77.0.2\n") {
		t.Errorf("the admin's way: %s", out)
	}
	if out := a.run("gate", "ssh-keygen -A >&2; /usr/sbin/sshd -T -C user=root,host=x,addr=198.51.100.1 2>&1 | grep ^port"); !strings.Contains(out, "port 2200\n") || strings.Contains(out, "port 22\n") {
		t.Errorf("the gate's sshd: %s", out)
	}
	for _, text := range []string{"ls /var/lib/mayfly-ca", "cat /var/lib/mayfly-ca/signer/ssh_host_ca", "touch /var/lib/mayfly-bastion-host/x", "touch /etc/mayfly-bastion/x"} {
		if out, err := a.try("gate", "setpriv --reuid=mayfly-bastion --regid=mayfly-bastion --init-groups sh -c '"+text+"'"); err == nil || !strings.Contains(out, "denied") && !strings.Contains(out, "No such") {
			t.Errorf("mayfly-bastion: %s: %v\n%s", text, err, out)
		}
	}
	// A login that did not come through the gate is named.
	a.hostSaid.Write([]byte("Accepted publickey for alice from 203.0.113.53 port 40123 ssh2: ED25519-SK SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\n"))
	a.journal()
	out, err := a.try("gate", "bastion audit reconcile --dir /var/lib/mayfly-bastion/audit --journal web-1.json --server web-1")
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 || !strings.Contains(out, "NOT RECORDED") {
		t.Errorf("a login around the gate: %v\n%s", err, out)
	}
	// A host with another key is nobody's host.
	known := filepath.Join("engineer", "home", ".ssh", "office.known_hosts")
	a.write(filepath.Join(a.dir, known), strings.ReplaceAll(a.read(known), strings.Fields(a.read("host/host_key.pub"))[1], strings.Fields(a.read("other.pub"))[1]))
	if out, err := a.try("engineer", login); err == nil || !strings.Contains(strings.ToLower(out), "verification failed") {
		t.Errorf("a host with another key: %v\n%s", err, out)
	}
}

type alone struct {
	t              *testing.T
	dir            string
	lab            netlab.Lab
	gate, engineer int // a process in each machine's namespaces
	alice          *softkey.Key
	hostSaid       *heard
	running        map[string]*running // units
}

// running is a service.
type running struct {
	said *heard
	stop func()
}

// keyed puts keys where the page has names for them.
func (a *alone) keyed(text string) string {
	return strings.NewReplacer("WEB_1_HOST_KEY", strings.Join(strings.Fields(a.read("host/host_key.pub"))[:2], " "), "ALICE_KEY", a.alice.Authorized()).Replace(text)
}

func (a *alone) read(name string) string {
	a.t.Helper()
	data, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(data)
}

// write makes a file as an editor with a common umask does.
func (a *alone) write(path, text string) {
	a.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// prepare makes what the page takes for granted: the tree with both programs, directories, keys and agents that hold them.
func (a *alone) prepare() {
	t := a.t
	t.Helper()
	for _, d := range []string{"bin", "keys", "admin/office", "admin/.ssh", "tree/bin", "tree/bastion", "gate", "host", "engineer/home/.ssh"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(a.dir, 0o755); err != nil { // alice's home is in it
		t.Fatal(err)
	}
	units, err := filepath.Abs("../bastion/systemd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(units, filepath.Join(a.dir, "tree", "bastion", "systemd")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(a.dir, "tree", "bin")+"/", "../bastion/cmd/bastion", "../fleetctl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, text := range aloneTools {
		path := filepath.Join(a.dir, "bin", name)
		a.write(path, "#!/bin/sh\nset -e\nDIR="+a.dir+"\n"+text)
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"host/host_key", "other"} {
		if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(a.dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	// A handle opens nothing by itself.
	handle := pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("openssh-key-v1\x00 of a security key")})
	if err := os.WriteFile(filepath.Join(a.dir, "keys", "handle"), handle, 0o600); err != nil {
		t.Fatal(err)
	}
	keys := map[string]*softkey.Key{}
	for _, name := range []string{"ana", "bo", "alice"} {
		if keys[name], err = softkey.New(rand.Reader); err != nil {
			t.Fatal(err)
		}
		a.write(filepath.Join(a.dir, "keys", name+".pub"), keys[name].Authorized()+"\n")
	}
	a.alice = keys["alice"]
	a.write(filepath.Join(a.dir, "engineer", "home", ".ssh", "id_ed25519_sk.pub"), a.alice.Authorized()+"\n")
	a.agent("admin", keys["ana"], keys["bo"])
	a.agent("engineer", a.alice)
	if err := os.Chown(filepath.Join(a.dir, "engineer.agent"), 54324, 54324); err != nil {
		t.Fatal(err)
	}
}

// agent is the ssh-agent of a machine.
func (a *alone) agent(where string, keys ...*softkey.Key) {
	a.t.Helper()
	var signers []ssh.Signer
	for _, k := range keys {
		signers = append(signers, k.Signer(softkey.Always))
	}
	l, err := softkey.Listen(filepath.Join(a.dir, where+".agent"))
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- softkey.NewAgent(signers...).Serve(ctx, l) }()
	a.t.Cleanup(func() { stop(); <-served })
}

// machine begins a mount namespace within a network's.
func (a *alone) machine(n netlab.Namespace, name, script string) (pid int) {
	a.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", script, "sh", filepath.Join(a.dir, name))
	said := new(heard)
	cmd.Stdout, cmd.Stderr = said, said
	if err := n.Start(cmd); err != nil {
		stop()
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { stop(); _ = cmd.Wait() }) // killed
	a.says(said, "ready\n")
	return cmd.Process.Pid
}

// command is one on a machine. Only what stands for something else comes before the machine's own programs.
func (a *alone) command(ctx context.Context, where string, args ...string) *exec.Cmd {
	wd := filepath.Join(a.dir, where)
	enter := func(pid int) {
		args = append([]string{"nsenter", "--mount", "--net", "--target", strconv.Itoa(pid), "--wd=."}, args...)
	}
	path, home, agent := filepath.Join(a.dir, "bin")+":"+os.Getenv("PATH"), filepath.Join(a.dir, where), filepath.Join(a.dir, where+".agent")
	switch where {
	case "admin":
		path = filepath.Join(a.dir, "tree", "bin") + ":" + path
	case "gate":
		path, wd, agent = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", filepath.Join(a.dir, "tree"), ""
		enter(a.gate)
	case "engineer":
		home = filepath.Join(a.dir, "engineer", "home")
		wd = home
		args = append([]string{"setpriv", "--reuid=54324", "--regid=54324", "--clear-groups"}, args...)
		enter(a.engineer)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = wd
	cmd.Env = []string{"PATH=" + path, "HOME=" + home, "SSH_AUTH_SOCK=" + agent, "LANG=C.UTF-8"}
	return cmd
}

// try runs a block and returns what it says, all of it.
func (a *alone) try(where, text string) (string, error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	cmd := a.command(ctx, where, "sh", "-e", "-c", "umask 022\n"+text)
	var out heard
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (a *alone) run(where, text string) string {
	a.t.Helper()
	out, err := a.try(where, text)
	if err != nil {
		a.t.Fatalf("on %s: %v\n%s\n%s", where, err, text, out)
	}
	return out
}

// login is an engineer's, word for word; a lost touch is shown.
func (a *alone) login(text string) string {
	a.t.Helper()
	return a.run("engineer", text)
}

// onGate runs a block there; systemd's part of it is the test's.
func (a *alone) onGate(text string) {
	a.t.Helper()
	script := ""
	flush := func() {
		a.t.Helper()
		if script != "" {
			a.run("gate", script)
		}
		script = ""
	}
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "systemctl" {
			flush()
			a.systemctl(words[1:]...)
			continue
		}
		script += line
	}
	flush()
}

// handOut brings the engineer what the admin has made.
func (a *alone) handOut() {
	a.t.Helper()
	for _, name := range []string{"office.conf", "office.known_hosts"} {
		a.write(filepath.Join(a.dir, "engineer", "home", ".ssh", name), a.read(filepath.Join("admin", name)))
	}
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
	a.hostSaid = a.inNamespace(a.lab.Target, "sshd", "unshare", "--mount", "sh", "-c", aloneSSHD, "sh", filepath.Join(a.dir, "host")).said
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
	a.write(filepath.Join(a.dir, "tree", "web-1.json"), out.String())
}
