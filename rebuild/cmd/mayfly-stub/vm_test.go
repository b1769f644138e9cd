package main

import (
	"bytes"
	"context"
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
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies/trust"
	"mayfly/rebuild/image"
	"mayfly/rebuild/join"
	"mayfly/rebuild/power"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
)

// A machine with QEMU's user network: the host's loopback is the guest's gateway.
const (
	guestAddress = "10.0.2.15/24"
	guestGateway = "10.0.2.2"
	bootLimit    = 3 * time.Minute // a busy machine is slow, not wrong
	atOnce       = 2               // machines
)

// tinySpec makes a root with nothing but the test's own init.
const tinySpec = `
kernel = "linux-image-cloud-amd64"
exclude = ["kmod", "linux-base", "initramfs-tools"]
[root]
directories = [
  { path = "/dev", mode = 0o755 }, { path = "/proc", mode = 0o555 }, { path = "/run", mode = 0o755 }, { path = "/sys", mode = 0o555 },
]
[modules]
stub = ["virtio_pci", "virtio_rng", "virtio_net", "loop", "erofs"]
init = ["tun"]
`

func signer(t *testing.T, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Seeds of the test's keys.
const (
	ana, ben, cleo, ticketKey, stranger = 1, 2, 3, 7, 9
)

func sign(t *testing.T, namespace string, data []byte, seeds ...byte) []byte {
	t.Helper()
	var out []byte
	for _, seed := range seeds {
		sig, err := sshsig.Sign(signer(t, seed), namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sig...)
	}
	return out
}

// bench is what all boots share: an image, a trust policy and a controller.
type bench struct {
	dir     string // vmlinuz, stub.cpio, root.erofs
	result  image.Result
	root    []byte
	trust   []byte
	fleet   inventory.Fleet
	ca      []byte
	files   map[string]http.HandlerFunc // by path
	reports chan join.Report
}

// newBench builds the image from a spec's file, or "-", and the programs.
func newBench(t *testing.T, build ...string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), files: map[string]http.HandlerFunc{}, reports: make(chan join.Report, 100)}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	store := filepath.Join(cache, "mayfly", "packages")
	start := time.Now()
	lockFile, builder := filepath.Join(b.dir, "lock"), program(t, "../../image/testdata/buildimage")
	if text, err := exec.CommandContext(t.Context(), builder, "lock", lockFile, store, build[0], image.DefaultProfile).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	cmd := exec.Command(builder, append([]string{lockFile, store, b.dir}, build...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &b.result); err != nil {
		t.Fatal(err)
	}
	t.Logf("image built in %.1f s: stub.cpio %d, root.erofs %d bytes", time.Since(start).Seconds(), b.result.Stub.Size, b.result.Root.Size)
	if b.root, err = os.ReadFile(filepath.Join(b.dir, release.RootFile)); err != nil {
		t.Fatal(err)
	}
	policy := &trust.Trust{Kind: trust.Kind, Fleet: "demo", Test: true, Version: 1, Threshold: 2, MinRelease: 5}
	for name, seed := range map[string]byte{"ana": ana, "ben": ben, "cleo": cleo} {
		policy.Approvers = append(policy.Approvers, trust.Person{Name: name, Keys: []string{trust.FormatKey(signer(t, seed).PublicKey())}})
	}
	policy.TicketKeys = []string{trust.FormatKey(signer(t, ticketKey).PublicKey())}
	policy.ListKeys = []string{trust.FormatKey(signer(t, ticketKey+1).PublicKey())}
	if b.trust, err = policy.Marshal(); err != nil {
		t.Fatal(err)
	}
	b.serve(t)
	return b
}

// program builds a package, without the race detector.
func program(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, text)
	}
	return out
}

// serve runs the two ports of the controller that a stub knows.
func (b *bench) serve(t *testing.T) {
	t.Helper()
	b.fleet = inventory.Fleet{Name: "demo", Domain: "demo.test"}
	b.fleet.Network.Gateway = netip.MustParseAddr(guestGateway)
	b.fleet.Controller.Address = netip.MustParseAddr(guestGateway)
	b.fleet.Servers = []inventory.Server{{Name: "vm", Address: netip.MustParsePrefix(guestAddress)}}

	files := http.NewServeMux()
	files.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if f := b.files[r.URL.Path]; f != nil {
			f(w, r)
			return
		}
		http.NotFound(w, r)
	})
	b.fleet.Controller.BootPort = listen(t, &http.Server{Handler: files}, nil)

	reports := http.NewServeMux()
	reports.HandleFunc("POST "+join.PathReport, func(w http.ResponseWriter, r *http.Request) {
		var report join.Report
		if err := json.NewDecoder(io.LimitReader(r.Body, join.MaxFrame)).Decode(&report); err != nil {
			t.Errorf("report: %v", err)
		}
		answer, err := join.Encode(struct{}{})
		if err != nil {
			t.Errorf("report: %v", err)
		}
		w.Write(answer)
		b.reports <- report
	})
	ca, certificate := certificates(t, "controller.demo.test")
	b.ca = ca
	b.fleet.Controller.JoinPort = listen(t, &http.Server{Handler: reports}, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
}

func listen(t *testing.T, server *http.Server, config *tls.Config) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	server.ErrorLog = discardLog
	if config != nil {
		l = tls.NewListener(l, config)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return port
}

var discardLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)

// certificates makes a CA and a server's certificate of it.
func certificates(t *testing.T, name string, ips ...net.IP) (ca []byte, certificate tls.Certificate) {
	t.Helper()
	key := func() (ed25519.PublicKey, ed25519.PrivateKey) {
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return pub, priv
	}
	caPub, caKey := key()
	pub, priv := key()
	now := time.Now()
	parent := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, parent, parent, caPub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: ips, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, pub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}
}

// attempt is one boot: what the controller serves and the driver hands over. The zero attempt is a good one.
type attempt struct {
	statement func(*release.Statement)
	approvers []byte
	ticket    func(*ticket.Ticket)
	ticketBy  byte
	root      func([]byte) []byte
	flaky     bool // the first answer to each file is a failure
	extra     []string
	memory    int    // MiB
	want      string // reason code; "" for a boot that gets to the root's init
}

func needMachines(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines; left out with -short")
	}
	for _, program := range []string{"qemu-system-x86_64", "apt-get"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not installed", program)
		}
	}
}

// The image of a fleet's servers boots as far as its own init, which finds no controller here that admits it.
func TestBootServer(t *testing.T) {
	needMachines(t)
	b := newBench(t, "-", "../../..")
	q, start := b.on(t, "server", attempt{memory: 512}, b.prepare(t, "server", attempt{}))
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	for _, line := range []string{"mayfly-stub: root\n", "mayfly-stub: switch\n", "mayfly-init: ", "mayfly-init: refused: "} {
		waitConsole(t, ctx, q, func(text string) bool { return strings.Contains(text, line) })
		t.Logf("%.1f s: %s", time.Since(start).Seconds(), strings.TrimSpace(line))
	}
	t.Log(waitConsole(t, ctx, q, func(string) bool { return true }))
}

func TestBoot(t *testing.T) {
	needMachines(t)
	specFile := filepath.Join(t.TempDir(), "tiny.toml")
	if err := os.WriteFile(specFile, []byte(tinySpec), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, specFile, "-", "mayfly-stub="+program(t, "."), "mayfly-init="+program(t, "./testdata/rootinit"))
	hour := time.Hour
	attempts := map[string]attempt{
		"good":           {},
		"flaky network":  {flaky: true},
		"one signature":  {approvers: []byte{ana}, want: release.Unsigned},
		"approver twice": {approvers: []byte{ana, ana}, want: release.Unsigned},
		"a stranger":     {approvers: []byte{ana, stranger}, want: release.Unsigned},
		"flipped byte": {root: func(r []byte) []byte {
			r[len(r)/2] ^= 1
			return r
		}, want: release.PartAltered},
		"truncated root": {root: func(r []byte) []byte { return r[:len(r)-4096] }, want: release.PartTruncated},
		"oversize root":  {root: func(r []byte) []byte { return append(r, 0) }, want: release.PartOversize},
		"expired release": {statement: func(s *release.Statement) {
			s.NotBefore, s.NotAfter = s.NotBefore.Add(-48*hour), s.NotBefore.Add(-24*hour)
		}, want: release.Expired},
		"future release": {statement: func(s *release.Statement) {
			s.NotBefore, s.NotAfter = s.NotAfter.Add(hour), s.NotAfter.Add(2*hour)
		}, want: release.NotYet},
		"older release":   {statement: func(s *release.Statement) { s.Version = 4 }, want: release.Older},
		"other fleet":     {statement: func(s *release.Statement) { s.Fleet = "else" }, want: release.OtherFleet},
		"other release":   {ticket: func(k *ticket.Ticket) { k.Release = strings.Repeat("00", 32) }, want: notTicketed},
		"root too big":    {statement: func(s *release.Statement) { s.Root.Size = release.MaxPart }, want: rootTooBig},
		"unsigned ticket": {ticketBy: stranger, want: ticket.Unsigned},
		"expired ticket":  {ticket: func(k *ticket.Ticket) { k.NotAfter = time.Now().UTC().Add(-hour).Truncate(time.Second) }, want: ticket.Expired},
		"fleet's ticket":  {ticket: func(k *ticket.Ticket) { k.Fleet = "else" }, want: ticket.OtherFleet},
		"clock behind":    {extra: []string{"-rtc", "base=2020-01-01T00:00:00"}, want: clockBehind},
	}
	machines := make(chan struct{}, atOnce)
	for name, a := range attempts {
		id := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "")
		handOver := b.prepare(t, id, a)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			machines <- struct{}{}
			defer func() { <-machines }()
			b.boot(t, id, a, handOver)
		})
	}
}

// prepare puts an attempt's files on the controller.
func (b *bench) prepare(t *testing.T, id string, a attempt) power.Boot {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	statement := release.Statement{
		Kind: release.Kind, Fleet: "demo", Version: 7, Least: 1, Profile: release.ProfileCloud, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), MaxAge: 86400,
		Kernel: b.result.Kernel, Stub: b.result.Stub, Root: b.result.Root, Cmdline: b.result.Cmdline, Lock: b.result.Lock, MinPolicy: 1,
	}
	if a.statement != nil {
		a.statement(&statement)
	}
	data, err := statement.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	approvers := a.approvers
	if approvers == nil {
		approvers = []byte{ana, cleo}
	}
	root := b.root
	if a.root != nil {
		root = a.root(bytes.Clone(root))
	}
	path := "/" + id + "/"
	for name, content := range map[string][]byte{
		release.StatementFile:  data,
		release.SignaturesFile: sign(t, release.Namespace, data, approvers...),
		release.RootFile:       root,
	} {
		b.files[path+name] = b.content(content, a.flaky)
	}
	k, err := issue.New(b.fleet, "vm", issue.Life{Epoch: 1, Release: sha256.Sum256(data), Path: path, CA: b.ca, NotAfter: now.Add(10 * time.Minute), MaxAge: time.Hour, Made: now,
		TPM: ticket.TPMOff, Disks: ticket.DisksRefuse})
	if err != nil {
		t.Fatal(err)
	}
	if a.ticket != nil {
		a.ticket(&k)
	}
	ticketData, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	by := a.ticketBy
	if by == 0 {
		by = ticketKey
	}
	return power.Boot{
		Epoch: 1, Cmdline: statement.Cmdline,
		Kernel: power.File{Path: filepath.Join(b.dir, release.KernelFile), Signed: b.result.Kernel},
		Stub:   power.File{Path: filepath.Join(b.dir, release.StubFile), Signed: b.result.Stub},
		Trust:  b.trust, Ticket: ticketData, TicketSig: sign(t, ticket.Namespace, ticketData, by),
	}
}

// content serves bytes; a flaky one fails first with a status, then in the middle.
func (b *bench) content(data []byte, flaky bool) http.HandlerFunc {
	var asked atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		if flaky && n == 1 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if flaky && n == 2 {
			w.Write(data[:len(data)/2]) // the server then breaks the connection
			return
		}
		w.Write(data)
	}
}

var (
	refusedLine = regexp.MustCompile(`(?m)^mayfly-stub: refused: ([a-z_]+): (.*)$`)
	reportLine  = regexp.MustCompile(`(?m)^mayfly-stub: report.*$`)
)

// on starts a machine, which ends with the test.
func (b *bench) on(t *testing.T, id string, a attempt, handOver power.Boot) (*power.QEMU, time.Time) {
	t.Helper()
	server := inventory.Server{Name: id, Power: inventory.Power{Driver: inventory.DriverQEMU, MAC: "52:54:00:00:00:01", MemoryMiB: max(a.memory, 256)}}
	q, err := power.OpenQEMU(server, t.TempDir(), power.Options{Netdev: "user", Extra: a.extra}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Off(context.Background()); err != nil {
			t.Error(err)
		}
	})
	start := time.Now()
	if err := q.On(t.Context(), handOver); err != nil {
		t.Fatal(err)
	}
	return q, start
}

func (b *bench) boot(t *testing.T, id string, a attempt, handOver power.Boot) {
	q, start := b.on(t, id, a, handOver)
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	if a.want == "" {
		b.expectRoot(t, ctx, q, handOver)
		t.Logf("power on to the root's init: %.1f s", time.Since(start).Seconds())
		return
	}
	text := waitConsole(t, ctx, q, func(text string) bool { return refusedLine.MatchString(text) })
	got := refusedLine.FindStringSubmatch(text)
	t.Logf("%.1f s: %s", time.Since(start).Seconds(), got[0])
	if got[1] != a.want {
		t.Errorf("refused with %q, want %q", got[1], a.want)
	}
	if strings.Contains(text, "root-init") {
		t.Error("the root's init ran")
	}
	if believed := !strings.HasPrefix(a.want, "ticket_") && a.want != clockBehind; believed {
		text := waitConsole(t, ctx, q, func(text string) bool { return reportLine.MatchString(text) })
		if !strings.Contains(text, "mayfly-stub: reported\n") {
			t.Fatalf("not reported: %s", reportLine.FindString(text))
		}
		for found := false; !found; {
			select {
			case r := <-b.reports:
				if !bytes.Equal(r.Ticket, handOver.Ticket) {
					b.reports <- r // another machine's
					continue
				}
				found = true
				if r.Reason != a.want || r.Stage != "stub" || r.Detail == "" {
					t.Errorf("report: stage %q, reason %q, detail %q, want stub, %q and a detail", r.Stage, r.Reason, r.Detail, a.want)
				}
			case <-ctx.Done():
				t.Fatal("no report arrived")
			}
		}
	}
	if st, err := q.Status(ctx); err != nil || !st.On || st.Epoch != 1 {
		t.Errorf("after a refusal the machine is %+v (%v), want it on and holding", st, err)
	}
}

// expectRoot reads what the root's init says of what it was handed over.
func (b *bench) expectRoot(t *testing.T, ctx context.Context, q *power.QEMU, handOver power.Boot) {
	text := waitConsole(t, ctx, q, func(text string) bool { return strings.Contains(text, "root-init: end\n") })
	for _, want := range []string{
		"mayfly-stub: switch\n",
		"root-init: pid 1\n",
		"root-init: root erofs true readonly true\n",
		"root-init: write open /written: read-only file system\n",
		fmt.Sprintf("root-init: file /run/mayfly/ticket.json -rw------- %d\n", len(handOver.Ticket)),
		fmt.Sprintf("root-init: file /run/mayfly/ticket.json.sig -rw------- %d\n", len(handOver.TicketSig)),
		fmt.Sprintf("root-init: file /run/mayfly/trust.json -rw------- %d\n", len(handOver.Trust)),
		"root-init: file /run/mayfly/release.json -rw-------",
		"root-init: mount tmpfs /run tmpfs rw,nosuid,nodev,noexec",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the console lacks %q:\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if block, ok := strings.CutPrefix(line, "root-init: file /sys/block/"); ok && !strings.HasPrefix(block, "loop") {
			t.Errorf("the machine has a block device: %s", line)
		}
		if sum := sha256.Sum256(handOver.Ticket); strings.Contains(line, hex.EncodeToString(sum[:])) {
			t.Errorf("the console names the ticket: %s", line)
		}
	}
	for {
		st, err := q.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !st.On {
			return
		}
		pause(t, ctx, "the machine to switch itself off")
	}
}

func waitConsole(t *testing.T, ctx context.Context, q *power.QEMU, enough func(string) bool) string {
	t.Helper()
	for ended := false; ; {
		data, err := os.ReadFile(q.ConsoleFile())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "\r", "")
		if enough(text) {
			return text
		}
		if st, err := q.Status(ctx); (err != nil || !st.On) && ended {
			t.Fatalf("the machine ended by itself (%v); its console:\n%s", err, text)
		} else {
			ended = !st.On // read the console once more
		}
		pause(t, ctx, "the console; so far:\n"+text)
	}
}

// pause lets a poll of a machine's state wait a little.
func pause(t *testing.T, ctx context.Context, what string) {
	t.Helper()
	select {
	case <-ctx.Done():
		t.Fatalf("waited too long for %s", what)
	case <-time.After(50 * time.Millisecond):
	}
}
