package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/rebuild/cpio"
	"mayfly/rebuild/image"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// Machines of these tests: the image's kernel and modules, this test program as init, QEMU's user network, no stub.
const (
	guestAddress = "10.0.2.15/24"
	guestGateway = "10.0.2.2"
	machineLimit = 8 * time.Minute // a busy machine is slow, not wrong
)

// machineSpec is image.toml's kernel with the modules of a server, and those of disks, which a server does not have.
const machineSpec = `
kernel = "linux-image-cloud-amd64"
exclude = ["kmod", "linux-base", "initramfs-tools"]
[root]
directories = [{ path = "/dev", mode = 0o755 }]
[modules]
stub = [%s]
init = []
`

// works is what all machines share.
type works struct {
	dir          string
	trust        []byte
	key          ssh.Signer
	ca           []byte
	port         uint16
	reports      chan join.Report
	kernel, stub release.Part
	signer       atomic.Pointer[quoteSigner] // of machines that have a TPM; nil: the network is lost before an answer
}

func needMachines(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines; left out with -short")
	}
	for _, program := range []string{"qemu-system-x86_64", "apt-get", "mkfs.ext4"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not installed", program)
		}
	}
}

func newWorks(t *testing.T, more ...string) *works {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := &works{dir: t.TempDir(), reports: make(chan join.Report, 16)}
	var names []string
	d := image.Default()
	for _, m := range slices.Concat(d.Modules.Stub, d.Modules.Init, more) {
		if !slices.Contains(names, fmt.Sprintf("%q", m)) {
			names = append(names, fmt.Sprintf("%q", m))
		}
	}
	text := fmt.Appendf(nil, machineSpec, strings.Join(names, ", "))
	spec, err := image.ParseSpec("machine.toml", text)
	must(err)
	must(os.WriteFile(filepath.Join(w.dir, "machine.toml"), text, 0o600))
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	store := filepath.Join(cache, "mayfly", "packages")
	lock, err := image.Lock(t.Context(), spec, store)
	must(err)
	lockFile := filepath.Join(w.dir, "lock")
	must(os.WriteFile(lockFile, lock, 0o600))
	program := filepath.Join(w.dir, "init")
	build := exec.Command("go", "test", "-c", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building this test without the race detector: %v\n%s", err, out)
	}
	builder := filepath.Join(w.dir, "buildimage")
	build = exec.Command("go", "build", "-o", builder, "../../image/testdata/buildimage")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the builder: %v\n%s", err, out)
	}
	cmd := exec.Command(builder, lockFile, store, w.dir, filepath.Join(w.dir, "machine.toml"), "-", "mayfly-stub="+program)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(err)
	var made image.Result
	must(json.Unmarshal(out, &made))
	w.kernel, w.stub = made.Kernel, made.Stub

	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	w.key, err = ssh.NewSignerFromKey(private)
	must(err)
	w.trust = testTrust(t, w.key)
	w.serve(t)
	return w
}

// testTrust is a policy under which this key signs tickets.
func testTrust(t *testing.T, key ssh.Signer) []byte {
	t.Helper()
	other := func() string { return trust.FormatKey(testSigner(t).PublicKey()) }
	p := &trust.Trust{Kind: trust.Kind, Fleet: "demo", Test: true, Version: 1, Threshold: 1, MinRelease: 1,
		Approvers:  []trust.Person{{Name: "ana", Keys: []string{other()}}},
		TicketKeys: []string{trust.FormatKey(key.PublicKey())}, ListKeys: []string{other()}}
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// serve is the controller's join port. It keeps reports; what it says to a join is the test's.
func (w *works) serve(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+join.PathReport, func(out http.ResponseWriter, r *http.Request) {
		var report join.Report
		if err := json.NewDecoder(io.LimitReader(r.Body, join.MaxFrame)).Decode(&report); err != nil {
			t.Errorf("report: %v", err)
		}
		io.WriteString(out, "{}")
		w.reports <- report
	})
	mux.HandleFunc("POST "+join.PathChallenge, func(out http.ResponseWriter, r *http.Request) { w.signer.Load().challenge(out, r) })
	mux.HandleFunc("POST "+join.PathJoin, func(out http.ResponseWriter, r *http.Request) {
		if s := w.signer.Load(); s != nil {
			s.join(out, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler) // the network is lost before an answer
	})
	key := func() (ed25519.PublicKey, ed25519.PrivateKey) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return public, private
	}
	caPublic, caKey := key()
	public, private := key()
	now := time.Now()
	parent := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca, err := x509.CreateCertificate(rand.Reader, parent, parent, caPublic, caKey)
	if err != nil {
		t.Fatal(err)
	}
	name := ticket.ControllerLabel + ".demo.test"
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, parent, public, caKey)
	if err != nil {
		t.Fatal(err)
	}
	w.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.port = uint16(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan error, 1)
	go func() {
		done <- server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf}, PrivateKey: private}}, MinVersion: tls.VersionTLS13}))
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// errand is what a machine is started with.
type errand struct {
	kind    string // what it is for
	disks   string
	cmdline string // signed; the kernel gets started with it, or with started
	started string
	life    time.Duration // to the ticket's deadline
	gone    bool          // no controller answers
	extra   []string
}

// guest is a machine that runs.
type guest struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when QEMU has ended
	started time.Time
}

func (w *works) start(t *testing.T, o errand) *guest {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if o.disks == "" {
		o.disks = ticket.DisksRefuse
	}
	if o.cmdline == "" {
		o.cmdline = image.Cmdline
	}
	if o.started == "" {
		o.started = o.cmdline
	}
	if o.life == 0 {
		o.life = time.Hour
	}
	port := w.port
	if o.gone {
		port = 1
	}
	now := time.Now().UTC().Truncate(time.Second)
	hash := strings.Repeat("00", 32)
	statement := release.Statement{Kind: release.Kind, Fleet: "demo", Version: 1, Least: 1, Profile: release.ProfileCloud, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		MaxAge: 86400, Kernel: w.kernel, Stub: w.stub, Root: w.stub, Cmdline: o.cmdline, Lock: hash, MinPolicy: 1}
	statementData, err := statement.Marshal()
	must(err)
	sum := sha256.Sum256(statementData)
	k, err := ticket.New(ticket.Ticket{Fleet: "demo", Domain: "demo.test", Server: "vm", Epoch: 1, Release: hex.EncodeToString(sum[:]), Mirrors: []string{"http://" + guestGateway + ":1/"},
		Network: ticket.Network{Mode: ticket.Static}, Address: netip.MustParsePrefix(guestAddress), Gateway: netip.MustParseAddr(guestGateway), TPM: ticket.TPMOff, Disks: o.disks,
		Controller: netip.AddrPortFrom(netip.MustParseAddr(guestGateway), port).String(), Name: ticket.ControllerLabel + ".demo.test", CA: string(w.ca),
		NotAfter: now.Add(30 * time.Minute), MaxAge: 86400, Deadline: now.Add(o.life)})
	must(err)
	ticketData, err := k.Marshal()
	must(err)
	sig, err := sshsig.Sign(w.key, ticket.Namespace, ticketData)
	must(err)
	g := &guest{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	initrd, err := os.Create(filepath.Join(g.dir, "initrd"))
	must(err)
	stub, err := os.ReadFile(filepath.Join(w.dir, release.StubFile))
	must(err)
	_, err = initrd.Write(stub)
	must(err)
	must(cpio.Write(initrd, []cpio.File{
		{Path: ticket.TrustFile, Mode: 0o600, Data: w.trust}, {Path: ticket.File, Mode: 0o600, Data: ticketData}, {Path: ticket.SignatureFile, Mode: 0o600, Data: sig},
		{Path: release.StatementFile, Mode: 0o600, Data: statementData},
	}))
	must(initrd.Close())
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,sata=off,accel=tcg", "-cpu", "max", "-smp", "1", "-m", "512",
		"-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile=", "-device", "virtio-rng-pci",
		"-device", "pcie-root-port,id=port1,chassis=1,slot=1", "-device", "pcie-root-port,id=port2,chassis=2,slot=2",
		"-serial", "file:console", "-qmp", "unix:qmp,server=on,wait=off", "-no-reboot",
		"-kernel", filepath.Join(w.dir, release.KernelFile), "-initrd", "initrd", "-append", o.started + " " + caseWord + o.kind}
	g.cmd = exec.Command("qemu-system-x86_64", append(args, o.extra...)...)
	g.cmd.Dir = g.dir
	g.cmd.Stderr = os.Stderr
	g.started = time.Now()
	must(g.cmd.Start())
	go func() {
		_ = g.cmd.Wait()
		close(g.ended)
	}()
	t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		<-g.ended
	})
	return g
}

func (g *guest) console() string {
	data, err := os.ReadFile(filepath.Join(g.dir, "console"))
	if err != nil && !os.IsNotExist(err) {
		g.t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r", "")
}

// wait waits for a line on the console.
func (g *guest) wait(line string) string {
	g.t.Helper()
	return g.waitFor(strings.TrimSpace(line), func(text string) bool { return strings.Contains(text, line) })
}

func (g *guest) waitFor(what string, enough func(string) bool) string {
	g.t.Helper()
	limit := time.After(machineLimit)
	for ended := false; ; {
		text := g.console()
		if enough(text) {
			g.t.Logf("%.1f s: %s", time.Since(g.started).Seconds(), what)
			return text
		}
		if ended {
			g.t.Fatalf("the machine ended without %q:\n%s", what, text)
		}
		select {
		case <-g.ended:
			ended = true // read the console once more
		case <-limit:
			g.t.Fatalf("waited too long for %q:\n%s", what, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// off waits until the machine has ended by itself.
func (g *guest) off() {
	g.t.Helper()
	select {
	case <-g.ended:
		g.t.Logf("%.1f s: off", time.Since(g.started).Seconds())
	case <-time.After(machineLimit):
		g.t.Fatalf("the machine did not end:\n%s", g.console())
	}
}

// qmp runs commands, each a name and its arguments.
func (g *guest) qmp(commands ...map[string]any) {
	g.t.Helper()
	dir, err := os.Open(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	defer dir.Close()
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/qmp", dir.Fd()))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewScanner(conn)
	in.Scan()
	for _, c := range append([]map[string]any{{"execute": "qmp_capabilities"}}, commands...) {
		if err := json.NewEncoder(conn).Encode(c); err != nil {
			g.t.Fatal(err)
		}
		for in.Scan() {
			if strings.Contains(in.Text(), `"error"`) {
				g.t.Fatalf("qmp %v: %s", c, in.Text())
			}
			if strings.Contains(in.Text(), `"return"`) {
				break
			}
		}
	}
}

func qmpCommand(name string, arguments map[string]any) map[string]any {
	return map[string]any{"execute": name, "arguments": arguments}
}

// report waits for a report with this reason.
func (w *works) report(t *testing.T, reason string) {
	t.Helper()
	select {
	case r := <-w.reports:
		if r.Reason != reason || r.Stage != "init" || r.Detail == "" {
			t.Errorf("report: stage %q, reason %q, detail %q; want init and %q", r.Stage, r.Reason, r.Detail, reason)
		}
	case <-time.After(machineLimit):
		t.Fatalf("no report of %s arrived", reason)
	}
}

// testDisks are a swap area, a file system, and noise.
func testDisks(t *testing.T) (paths []string, unchanged func()) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"swap", "ext4", "noise", "later-swap", "later-ext4"} {
		path := filepath.Join(dir, name)
		data := make([]byte, 8<<20)
		switch {
		case strings.HasSuffix(name, "swap"):
			copy(data, swapHeader(len(data)))
		case name == "noise":
			rand.Read(data)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "ext4") {
			if out, err := exec.Command("mkfs.ext4", "-q", "-F", path).CombinedOutput(); err != nil {
				t.Fatalf("mkfs.ext4: %v: %s", err, out)
			}
		}
		paths = append(paths, path)
	}
	before := map[string][]byte{}
	for _, p := range paths {
		before[p], _ = os.ReadFile(p)
	}
	return paths, func() {
		t.Helper()
		for _, p := range slices.Sorted(maps.Keys(before)) {
			after, err := os.ReadFile(p)
			if err != nil || !bytes.Equal(before[p], after) {
				n := 0
				for i := range min(len(after), len(before[p])) {
					if after[i] != before[p][i] {
						n++
					}
				}
				t.Errorf("%s: %d bytes changed, %d bytes are %d (%v)", filepath.Base(p), n, len(before[p]), len(after), err)
			} else {
				t.Logf("%s: 0 of %d bytes changed", filepath.Base(p), len(after))
			}
		}
	}
}

func blockdev(id, path string) map[string]any {
	return qmpCommand("blockdev-add", map[string]any{"driver": "raw", "node-name": id, "file": map[string]any{"driver": "file", "filename": path}})
}
