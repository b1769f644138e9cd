package medium_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/rebuild/image"
	"mayfly/rebuild/medium"
	"mayfly/rebuild/uki"
)

// Debian's firmware: the build that knows Secure Boot, and its empty variables.
const (
	firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	firmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	bootLimit    = 5 * time.Minute // a busy machine is slow, not wrong
)

// spec makes an initramfs with the probe and what it needs.
const spec = `
kernel = "linux-image-cloud-amd64"
packages = ["systemd-boot-efi"]
exclude = ["kmod", "linux-base", "initramfs-tools"]
efi_stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
[root]
directories = [{ path = "/dev", mode = 0o755 }]
[modules]
stub = ["efivarfs"]
init = ["tun"]
`

// cmdline is shorter than an image's own, which shuts the kernel off from firmware's variables: the probe enrols keys in them.
const cmdline = "console=ttyS0 quiet loglevel=3 panic=-1"

var trustPolicy = []byte(`{"stands for":"a trust policy"}`)

// parts makes what an image is made of, with the probe in the place of mayfly-stub.
func parts(t *testing.T) uki.Parts {
	t.Helper()
	dir := t.TempDir()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = dir
	}
	store, lock, specFile := filepath.Join(cache, "mayfly", "packages"), filepath.Join(dir, "lock"), filepath.Join(dir, "probe.toml")
	if err := os.WriteFile(specFile, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	builder, probe := program(t, dir, "../image/testdata/buildimage"), program(t, dir, "./testdata/probe")
	command(t, builder, "lock", lock, store, specFile, image.DefaultProfile)
	var built image.Result
	result := command(t, builder, lock, store, dir, specFile, "-", "mayfly-stub="+probe, "mayfly-init="+probe)
	if err := json.Unmarshal(result, &built); err != nil {
		t.Fatal(err)
	}
	file := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	initrd, err := uki.Initrd(file("stub.cpio"), "trust.json", trustPolicy)
	if err != nil {
		t.Fatal(err)
	}
	return uki.Parts{Stub: file("efi.stub"), Kernel: file("vmlinuz"), Initrd: initrd, Cmdline: cmdline, OSRelease: "ID=mayfly\nNAME=mayfly\n", Uname: built.Uname}
}

// program builds one without the race detector.
func program(t *testing.T, dir, pkg string) string {
	t.Helper()
	out := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, text)
	}
	return out
}

func command(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var talk bytes.Buffer
	cmd.Stderr = &talk
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, talk.String())
	}
	return out
}

// owner is one of the three keys of a fleet, or a stranger's.
type owner struct {
	key         *rsa.PrivateKey
	certificate *x509.Certificate
}

func newOwner(t *testing.T, name string) owner {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, uki.MinKeyBits)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	certificate, err := uki.Certify(name, key, now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return owner{key, certificate}
}

func (o owner) sign(t *testing.T, image []byte) []byte {
	t.Helper()
	signed, err := uki.Sign(image, o.key, o.certificate)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func build(t *testing.T, p uki.Parts) []byte {
	t.Helper()
	data, err := uki.Build(p)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// drive is one medium of a machine.
type drive struct {
	form  string // "usb" or "iso"
	image []byte
	files []uki.Credential
}

// machine is a directory with the firmware's variables and a TPM, which stay from one boot to the next.
type machine struct{ dir string }

func newMachine(t *testing.T) *machine {
	t.Helper()
	vars, err := os.ReadFile(firmwareVars)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{dir: t.TempDir()}
	if err := errors.Join(os.WriteFile(filepath.Join(m.dir, "vars.fd"), vars, 0o600), os.Mkdir(filepath.Join(m.dir, "tpm"), 0o700)); err != nil {
		t.Fatal(err)
	}
	return m
}

// boot runs the machine until it switches itself off, and returns what it said. Firmware tries the drives in their order.
func (m *machine) boot(t *testing.T, drives ...drive) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,smm=on,accel=tcg", "-cpu", "max", "-smp", "1", "-m", "512",
		"-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + firmwareCode, "-drive", "if=pflash,format=raw,unit=1,file=vars.fd",
		"-chardev", "socket,id=tpm,path=tpm.sock", "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0",
		"-serial", "file:console", "-no-reboot"}
	for i, d := range drives {
		name := fmt.Sprintf("drive%d", i)
		f, err := os.Create(filepath.Join(m.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		write := map[string]func(io.Writer, []byte, []uki.Credential) error{"usb": medium.USB, "iso": medium.ISO}[d.form]
		if err := errors.Join(write(f, d.image, d.files), f.Close()); err != nil {
			t.Fatal(err)
		}
		args = append(args, medium.DeviceArguments(d.form, name, i)...)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(m.dir, "tpm.sock")), os.RemoveAll(filepath.Join(m.dir, "console"))); err != nil { // of the boot before
		t.Fatal(err)
	}
	tpm := m.start(t, "swtpm", "socket", "--tpm2", "--tpmstate", "dir=tpm", "--ctrl", "type=unixio,path=tpm.sock", "--flags", "startup-clear", "--terminate")
	for {
		if _, err := os.Stat(filepath.Join(m.dir, "tpm.sock")); err == nil {
			break
		}
		m.pause(t, ctx, tpm)
	}
	began := time.Now()
	qemu := m.start(t, "qemu-system-x86_64", args...)
	for up := false; ; {
		over := qemu.over()
		text := m.console(t)
		if !up && strings.Contains(text, "probe: up\n") {
			up = true
			t.Logf("power on to /init: %.1f s", time.Since(began).Seconds())
		}
		if over {
			if !strings.Contains(text, "probe: end\n") {
				t.Fatalf("the machine ended by itself: %s\n%s", qemu.said(), text)
			}
			return text
		}
		if strings.Contains(text, "Press any key to enter the Boot Manager Menu") {
			t.Fatalf("firmware found nothing to boot:\n%s", text)
		}
		m.pause(t, ctx, qemu, tpm)
	}
}

func (m *machine) console(t *testing.T) string {
	data, err := os.ReadFile(filepath.Join(m.dir, "console"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r", "")
}

// pause lets a poll wait a little, and ends the test when the time is over.
func (m *machine) pause(t *testing.T, ctx context.Context, processes ...*process) {
	t.Helper()
	select {
	case <-ctx.Done():
		var said []string
		for _, p := range processes {
			said = append(said, p.said())
		}
		t.Fatalf("waited too long: %q\n%s", said, m.console(t))
	case <-time.After(50 * time.Millisecond):
	}
}

// process ends with the test.
type process struct {
	done chan struct{}
	talk string
}

func (m *machine) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{done: make(chan struct{}), talk: filepath.Join(m.dir, name+".log")}
	talk, err := os.Create(p.talk)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.dir, talk, talk // short paths: a socket's may have 107 bytes
	if err := errors.Join(cmd.Start(), talk.Close()); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait() // what it said is in the log
		close(p.done)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) said() string {
	data, _ := os.ReadFile(p.talk)
	return string(data)
}

// line returns what follows "probe: NAME " on the console.
func line(t *testing.T, text, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^probe: ` + regexp.QuoteMeta(name) + ` (.*)$`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("the console lacks %q:\n%s", name, text)
	}
	return found[1]
}

// extended is a PCR (SHA-256) after these digests.
func extended(digests ...[sha256.Size]byte) string {
	var pcr [sha256.Size]byte
	for _, d := range digests {
		pcr = sha256.Sum256(append(pcr[:], d[:]...))
	}
	return strings.ToUpper(hex.EncodeToString(pcr[:]))
}

func authenticode(t *testing.T, data []byte) [sha256.Size]byte {
	t.Helper()
	sum, err := uki.Authenticode(data)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func needFirmware(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines; left out with -short")
	}
	for _, program := range []string{"qemu-system-x86_64", "swtpm", "apt-get"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not installed", program)
		}
	}
	if _, err := os.Stat(firmwareCode); err != nil {
		t.Skipf("SKIPPED: %s is not there (Debian: ovmf)", firmwareCode)
	}
}

// A machine enrols the fleet's keys, and then refuses what is not signed by them; another has them enrolled from the start.
func TestSecureBoot(t *testing.T) {
	needFirmware(t)
	p := parts(t)
	good := build(t, p)
	pk, kek, db, stranger := newOwner(t, "PK"), newOwner(t, "KEK"), newOwner(t, "db"), newOwner(t, "stranger")
	m := newMachine(t)

	// In setup mode anything boots, and firmware takes the updates that `fleetctl image secureboot-keys` makes.
	var updates []uki.Credential
	for _, v := range []struct {
		variable uki.Variable
		of, by   owner
	}{{uki.DB, db, kek}, {uki.KEK, kek, pk}, {uki.PK, pk, pk}} {
		data, err := uki.SignedUpdate(v.variable, uki.SignatureList("demo", v.of.certificate), v.by.key, v.by.certificate, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		updates = append(updates, uki.Credential{Name: v.variable.Name + ".auth", Data: data})
	}
	text := m.boot(t, drive{form: "usb", image: good, files: updates})
	for _, v := range []string{"db", "KEK", "PK"} {
		if got := line(t, text, "enrolled "+v); got != "true" {
			t.Fatalf("%s is not enrolled:\n%s", v, text)
		}
	}
	if line(t, text, "SetupMode") != "0" || line(t, text, "SecureBoot") != "0" {
		t.Errorf("after enrolling: SetupMode %s, SecureBoot %s", line(t, text, "SetupMode"), line(t, text, "SecureBoot"))
	}
	checkMeasured(t, text, p, good, updates, false)

	// Every bad image is tried and refused before the good one.
	signed := db.sign(t, good)
	altered := bytes.Clone(signed)
	altered[bytes.Index(altered, p.Initrd)+len(p.Initrd)/2] ^= 1
	otherLine := p
	otherLine.Cmdline += " init=/bin/sh"
	elsewhere := bytes.Clone(signed)
	at := bytes.Index(elsewhere, []byte(p.Cmdline))
	copy(elsewhere[at:], "console=ttyS1")
	bad := []drive{
		{form: "usb", image: altered},
		{form: "usb", image: good}, // unsigned
		{form: "usb", image: stranger.sign(t, good)},
		{form: "usb", image: build(t, otherLine)},
		{form: "usb", image: elsewhere},
	}
	for i := range bad {
		bad[i].files = []uki.Credential{{Name: fmt.Sprintf("bad-%d", i)}}
	}
	tickets := []uki.Credential{{Name: "ticket.json", Data: []byte("ticket")}, {Name: "ticket.json.sig", Data: []byte("sig")}}
	text = m.boot(t, append(slices.Clone(bad), drive{form: "usb", image: signed, files: tickets})...)
	refused := regexp.MustCompile(`(?m)BdsDxe: failed to load Boot[0-9A-F]{4} .*USB.*: Access Denied$`).FindAllString(text, -1)
	if len(refused) != len(bad) {
		t.Errorf("firmware refused %d images, want %d:\n%s", len(refused), len(bad), text)
	}
	if strings.Contains(text, "/bad-") {
		t.Errorf("a bad image ran:\n%s", text)
	}
	if strings.Count(text, "probe: up\n") != 1 || line(t, text, "SecureBoot") != "1" {
		t.Errorf("the good image did not run once under Secure Boot:\n%s", text)
	}

	// The same image from a CD, alone, on a machine whose keys were written into its file of variables: what was measured is what we compute.
	var keys []uki.Enrolled
	for _, v := range []struct {
		variable uki.Variable
		of       owner
	}{{uki.PK, pk}, {uki.KEK, kek}, {uki.DB, db}} {
		keys = append(keys, uki.Enrolled{Variable: v.variable, List: uki.SignatureList("demo", v.of.certificate)})
	}
	m = newMachine(t)
	vars := filepath.Join(m.dir, "vars.fd")
	data, err := os.ReadFile(vars)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = uki.Enrol(data, keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vars, data, 0o600); err != nil {
		t.Fatal(err)
	}
	text = m.boot(t, drive{form: "iso", image: signed, files: tickets})
	if line(t, text, "SecureBoot") != "1" || line(t, text, "cmdline") != p.Cmdline {
		t.Errorf("SecureBoot %s, command line %q", line(t, text, "SecureBoot"), line(t, text, "cmdline"))
	}
	for path, data := range map[string][]byte{"/trust.json": trustPolicy, uki.CredentialDir + "ticket.json.cred": []byte("ticket"), uki.CredentialDir + "ticket.json.sig.cred": []byte("sig")} {
		if got := line(t, text, "file "+path); !strings.HasSuffix(got, fmt.Sprintf(" %x", sha256.Sum256(data))) {
			t.Errorf("%s arrived as %s", path, got)
		}
	}
	if strings.Contains(text, "probe: block ") {
		t.Errorf("the kernel sees the medium:\n%s", text)
	}
	checkMeasured(t, text, p, good, tickets, true)
}

// checkMeasured computes PCRs from what was booted. Under Secure Boot systemd-stub loads the kernel past firmware's check, and with
// that past its measurement: the kernel is covered as part of the image.
func checkMeasured(t *testing.T, text string, p uki.Parts, image []byte, files []uki.Credential, secureBoot bool) {
	t.Helper()
	boot := [][sha256.Size]byte{sha256.Sum256([]byte("Calling EFI Application from Boot Option")), sha256.Sum256(make([]byte, 4)), authenticode(t, image)}
	if !secureBoot {
		boot = append(boot, authenticode(t, p.Kernel))
	}
	var sections [][sha256.Size]byte
	for _, s := range []struct {
		name string
		data []byte
	}{{uki.SectionKernel, p.Kernel}, {uki.SectionOSRelease, []byte(p.OSRelease)}, {uki.SectionCmdline, []byte(p.Cmdline)}, {uki.SectionInitrd, p.Initrd}} {
		sections = append(sections, sha256.Sum256([]byte(s.name+"\x00")), sha256.Sum256(s.data))
	}
	r, err := uki.Measure(image)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := r.Loaded(files)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%X", r.Sections); got != extended(sections...) {
		t.Errorf("uki.Measure says of PCR 11 %s", got)
	}
	for pcr, want := range map[string]string{"pcr 4": extended(boot...), "pcr 9": fmt.Sprintf("%X", loaded), "pcr 11": extended(sections...), "pcr 12": extended(uki.Measured(files))} {
		if got := line(t, text, pcr); got != want {
			t.Errorf("Secure Boot %v: %s is %s, want %s", secureBoot, pcr, got, want)
		}
	}
}
