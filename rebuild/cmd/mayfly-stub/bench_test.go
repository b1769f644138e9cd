package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/policies/trust"
	"mayfly/rebuild/image"
	"mayfly/rebuild/join"
	"mayfly/rebuild/power"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
)

const (
	bootLimit = 3 * time.Minute // a busy machine is slow, not wrong
	atOnce    = 2               // machines
)

// machines bounds how many run at a time.
var machines = make(chan struct{}, atOnce)

// tinySpec makes a root with nothing but the test's own init.
const tinySpec = `
kernel = "linux-image-cloud-amd64"
exclude = ["kmod", "linux-base", "initramfs-tools"]
[root]
directories = [
  { path = "/dev", mode = 0o755 }, { path = "/proc", mode = 0o555 }, { path = "/run", mode = 0o755 }, { path = "/sys", mode = 0o555 },
]
[modules]
stub = ["virtio_pci", "virtio_rng", "virtio_net", "loop", "erofs", "bonding", "8021q"]
init = ["tun"]
`

// bench is an image that boots share.
type bench struct {
	dir    string // vmlinuz, stub.cpio, root.erofs
	result image.Result
	root   []byte
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

// newTinyBench is a bench whose root's init says what it was handed over.
func newTinyBench(t *testing.T) *bench {
	t.Helper()
	needMachines(t)
	specFile := filepath.Join(t.TempDir(), "tiny.toml")
	if err := os.WriteFile(specFile, []byte(tinySpec), 0o600); err != nil {
		t.Fatal(err)
	}
	return newBench(t, specFile, "-", "mayfly-stub="+program(t, "."), "mayfly-init="+program(t, "./testdata/rootinit"))
}

// newBench builds the image from a spec's file, or "-", and the programs.
func newBench(t *testing.T, build ...string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
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

// attempt is one boot: what people signed, what mirrors and witnesses serve, and what the driver hands over. The zero attempt is a good one.
type attempt struct {
	trust      func(*trust.Trust)
	statement  func(*release.Statement)
	approvers  []byte
	builders   []byte              // nil: one
	root       func([]byte) []byte // before it is signed
	proof      func(statement, sigs []byte) []byte
	cosigners  []byte
	mirrors    []behaviour // nil: one honest one
	https      bool        // the last of them
	witnesses  []knows     // nil: all three confirm
	ticket     func(*ticket.Ticket)
	ticketData func([]byte) []byte // before it is signed
	ticketBy   byte
	age        time.Duration // of all that was signed
	clock      time.Duration // how far the machine's clock is behind

	extra  []string // of QEMU
	memory int      // MiB

	want       string // reason code; "" for a boot that gets to the root's init
	unreported bool   // nobody can be told: no ticket is believed, or the network does not reach the controller
	says       []string
	check      func(t *testing.T, a *attempt, text string) // of a boot that gets there
	during     func(t *testing.T, ctx context.Context, m *machine)

	start    func(func() error) error // what On runs in; nil: here
	handOver power.Boot               // by prepare
	reports  <-chan join.Report
}

// prepare signs an attempt's files and puts them on the site.
func (a *attempt) prepare(t *testing.T, b *bench, s *site, id string) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second).Add(-a.age)
	root := b.root
	statement := release.Statement{
		Kind: release.Kind, Fleet: "demo", Version: 7, Least: 1, Profile: release.ProfileCloud, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), MaxAge: 86400,
		Kernel: b.result.Kernel, Stub: b.result.Stub, Root: b.result.Root, Cmdline: b.result.Cmdline, Lock: b.result.Lock, MinPolicy: 1,
	}
	if a.root != nil {
		root = a.root(bytes.Clone(root))
		sum := sha256.Sum256(root)
		statement.Root = release.Part{Size: int64(len(root)), SHA256: hex.EncodeToString(sum[:])}
	}
	if a.statement != nil {
		a.statement(&statement)
	}
	data, err := statement.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	sigs := append(sign(t, release.Namespace, data, or(a.approvers, ana, cleo)...), sign(t, release.BuildNamespace, data, or(a.builders, bo)...)...)
	proof := prove(t, data, sigs, now, or(a.cosigners, ida, jon)...)
	if a.proof != nil {
		proof = a.proof(data, sigs)
	}
	life := issue.Life{Epoch: 1, Release: sum, Path: "/" + id + "/0/", CA: s.ca, NotAfter: now.Add(10 * time.Minute), MaxAge: time.Hour, Made: now,
		TPM: ticket.TPMOff, Disks: ticket.DisksRefuse}
	k, err := issue.New(s.fleet, "vm", life)
	if err != nil {
		t.Fatal(err)
	}
	k.Mirrors = nil
	for i, mirror := range or(a.mirrors, honest) {
		path := fmt.Sprintf("/%s/%d/", id, i)
		for name, content := range map[string][]byte{release.StatementFile: data, release.SignaturesFile: sigs, release.ProofFile: proof, release.RootFile: root} {
			s.put(path+name, mirror(name, content))
		}
		at := s.http
		if a.https && i == len(a.mirrors)-1 {
			at = s.https
		}
		k.Mirrors = append(k.Mirrors, at+path)
	}
	for _, w := range or(a.witnesses, knows{seed: ida}, knows{seed: jon}, knows{seed: kim}) {
		port := uint16(w.seed) // nobody listens
		if !w.silent {
			port = s.serve(t, w.serve(t, statement, hex.EncodeToString(sum[:])), nil)
		}
		k.Witnesses = append(k.Witnesses, strings.TrimSuffix(s.http, fmt.Sprint(s.fleet.Controller.BootPort))+fmt.Sprint(port))
	}
	if a.ticket != nil {
		a.ticket(&k)
	}
	ticketData, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if a.ticketData != nil {
		ticketData = a.ticketData(ticketData)
	}
	policy := strict(t)
	if a.trust != nil {
		a.trust(&policy)
	}
	policyData, err := policy.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	by := a.ticketBy
	if by == 0 {
		by = ticketKey
	}
	a.reports = s.expectReports(ticketData)
	a.handOver = power.Boot{
		Epoch: 1, Cmdline: statement.Cmdline,
		Kernel: power.File{Path: filepath.Join(b.dir, release.KernelFile), Signed: b.result.Kernel},
		Stub:   power.File{Path: filepath.Join(b.dir, release.StubFile), Signed: b.result.Stub},
		Trust:  policyData, Ticket: ticketData, TicketSig: sign(t, ticket.Namespace, ticketData, by),
	}
	if a.clock != 0 {
		a.extra = append(a.extra, "-rtc", "base="+time.Now().UTC().Add(-a.clock).Format("2006-01-02T15:04:05"))
	}
}

func or[T any](given []T, otherwise ...T) []T {
	if given == nil {
		return otherwise
	}
	return given
}

// machine is a booted one.
type machine struct {
	*power.QEMU
	start time.Time
}

// on starts a machine, which ends with the test.
func (a *attempt) on(t *testing.T, netdev string) *machine {
	t.Helper()
	server := inventory.Server{Name: "vm", Power: inventory.Power{Driver: inventory.DriverQEMU, MAC: "52:54:00:00:00:01", MemoryMiB: max(a.memory, 256)}}
	q, err := power.OpenQEMU(server, t.TempDir(), power.Options{Netdev: netdev, Extra: a.extra}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Off(context.Background()); err != nil {
			t.Error(err)
		}
	})
	m := &machine{QEMU: q, start: time.Now()}
	start := a.start
	if start == nil {
		start = func(f func() error) error { return f() }
	}
	if err := start(func() error { return q.On(t.Context(), a.handOver) }); err != nil {
		t.Fatal(err)
	}
	return m
}

// alteredCopy is a copy of a file with one bit changed.
func alteredCopy(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	path = filepath.Join(t.TempDir(), "altered")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// refusedByDriver is why the driver does not start this.
func (a *attempt) refusedByDriver(t *testing.T) error {
	t.Helper()
	server := inventory.Server{Name: "vm", Power: inventory.Power{Driver: inventory.DriverQEMU, MAC: "52:54:00:00:00:01"}}
	q, err := power.OpenQEMU(server, t.TempDir(), power.Options{Netdev: "user"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = q.On(t.Context(), a.handOver)
	if st, statusErr := q.Status(t.Context()); statusErr != nil || st.On {
		t.Errorf("after its refusal: %+v, %v", st, statusErr)
	}
	return err
}

var (
	refusedLine = regexp.MustCompile(`(?m)^mayfly-stub: refused: ([a-z_]+): (.*)$`)
	reportLine  = regexp.MustCompile(`(?m)^mayfly-stub: report.*$`)
)

// run boots, waits for what comes of it and returns the reason code that console and report agree on.
func (a *attempt) run(t *testing.T, m *machine) {
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	if a.during != nil {
		a.during(t, ctx, m)
	}
	if a.want == "" {
		text := a.expectRoot(t, ctx, m)
		t.Logf("power on to the root's init: %.1f s", time.Since(m.start).Seconds())
		a.heard(t, text)
		if a.check != nil {
			a.check(t, a, text)
		}
		return
	}
	text := waitConsole(t, ctx, m, func(text string) bool { return refusedLine.MatchString(text) })
	got := refusedLine.FindStringSubmatch(text)
	t.Logf("%.1f s: %s", time.Since(m.start).Seconds(), got[0])
	if got[1] != a.want {
		t.Fatalf("refused with %q, want %q; the console:\n%s", got[1], a.want, text)
	}
	if strings.Contains(text, "root-init") {
		t.Error("the root's init ran")
	}
	a.heard(t, text)
	if a.unreported {
		select {
		case r := <-a.reports:
			t.Errorf("reported: %+v", r)
		default:
		}
	} else {
		a.expectReport(t, ctx, m)
	}
	if st, err := m.Status(ctx); err != nil || !st.On || st.Epoch != 1 {
		t.Errorf("after a refusal the machine is %+v (%v), want it on and holding", st, err)
	}
}

func (a *attempt) heard(t *testing.T, text string) {
	t.Helper()
	for _, want := range a.says {
		if !strings.Contains(text, want) {
			t.Errorf("the console lacks %q:\n%s", want, text)
		}
	}
}

func (a *attempt) expectReport(t *testing.T, ctx context.Context, m *machine) {
	t.Helper()
	text := waitConsole(t, ctx, m, func(text string) bool { return reportLine.MatchString(text) })
	if !strings.Contains(text, "mayfly-stub: reported\n") {
		t.Fatalf("not reported: %s", reportLine.FindString(text))
	}
	select {
	case r := <-a.reports:
		if r.Reason != a.want || r.Stage != "stub" || r.Detail == "" {
			t.Errorf("report: stage %q, reason %q, detail %q, want stub, %q and a detail", r.Stage, r.Reason, r.Detail, a.want)
		}
	case <-ctx.Done():
		t.Fatal("no report arrived")
	}
}

// expectRoot reads what the root's init says of what it was handed over.
func (a *attempt) expectRoot(t *testing.T, ctx context.Context, m *machine) string {
	t.Helper()
	text := waitConsole(t, ctx, m, func(text string) bool {
		return strings.Contains(text, "root-init: end\n") || refusedLine.MatchString(text)
	})
	for _, want := range []string{
		"mayfly-stub: switch\n",
		"root-init: pid 1\n",
		"root-init: root erofs true readonly true\n",
		"root-init: write open /written: read-only file system\n",
		fmt.Sprintf("root-init: file /run/mayfly/ticket.json -rw------- %d\n", len(a.handOver.Ticket)),
		fmt.Sprintf("root-init: file /run/mayfly/ticket.json.sig -rw------- %d\n", len(a.handOver.TicketSig)),
		fmt.Sprintf("root-init: file /run/mayfly/trust.json -rw------- %d\n", len(a.handOver.Trust)),
		"root-init: file /run/mayfly/release.json -rw-------",
		"root-init: mount tmpfs /run tmpfs rw,nosuid,nodev,noexec",
	} {
		if !strings.Contains(text, want) {
			t.Fatalf("the console lacks %q:\n%s", want, text)
		}
	}
	sum := sha256.Sum256(a.handOver.Ticket)
	for line := range strings.Lines(text) {
		if block, ok := strings.CutPrefix(line, "root-init: file /sys/block/"); ok && !strings.HasPrefix(block, "loop") {
			t.Errorf("the machine has a block device: %s", line)
		}
		if strings.Contains(line, hex.EncodeToString(sum[:])) && !strings.Contains(line, "measured") {
			t.Errorf("the console names the ticket: %s", line)
		}
	}
	for {
		st, err := m.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !st.On {
			return text
		}
		pause(t, ctx, "the machine to switch itself off")
	}
}

func waitConsole(t *testing.T, ctx context.Context, m *machine, enough func(string) bool) string {
	t.Helper()
	for ended := false; ; {
		data, err := os.ReadFile(m.ConsoleFile())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "\r", "")
		if enough(text) {
			return text
		}
		if st, err := m.Status(ctx); (err != nil || !st.On) && ended {
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
