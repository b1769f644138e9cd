package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/rebuild/attest"
	"mayfly/rebuild/image"
	"mayfly/rebuild/join"
	"mayfly/rebuild/medium"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/uki"
)

const (
	efiStubFile  = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	firmwareFile = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	variables    = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	believed     = "test_believed" // the join is answered with this refusal, when the machine was believed: there is no fleet to join
)

// quoteSigner is what the fleet's signer does with a quote, for one machine.
type quoteSigner struct {
	t *testing.T

	mu     sync.Mutex // guards the rest
	want   attest.Expected
	result attest.Result
	ek     string
}

func (s *quoteSigner) answer(out http.ResponseWriter, v any, err error) {
	if r, ok := err.(*attest.Refusal); ok {
		v = join.Refuse(r.Reason, "%v", r.Err)
	} else if err != nil {
		s.t.Error(err)
	}
	if _, refused := v.(*join.Refusal); refused {
		out.WriteHeader(http.StatusForbidden)
	}
	data, err := join.Encode(v)
	if err != nil {
		s.t.Error(err)
	}
	out.Write(data)
}

func (s *quoteSigner) challenge(out http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, join.MaxRequest))
	if err != nil {
		s.t.Error(err)
	}
	q, err := join.Decode[join.ChallengeRequest](body, join.MaxRequest)
	if err != nil {
		s.t.Error(err)
	}
	s.ek = attest.EndorsementHash(q.EK)
	if s.want.EndorsementKey == "" {
		s.want.EndorsementKey = s.ek // the inventory's, for those who do not care
	}
	if err := attest.CheckEndorsement(q.EK, s.want.EndorsementKey); err != nil {
		s.answer(out, nil, err)
		return
	}
	blob, encrypted, err := attest.MakeCredential(rand.Reader, q.EK, q.AK, s.want.Secret)
	s.answer(out, join.Challenge{Nonce: s.want.Nonce, Blob: blob, Encrypted: encrypted}, err)
}

func (s *quoteSigner) join(out http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, join.MaxJoin))
	if err != nil {
		s.t.Error(err)
	}
	q, err := join.Decode[join.Request](body, join.MaxJoin)
	if err != nil || q.Attestation == nil {
		s.t.Errorf("a join without a quote: %v", err)
		return
	}
	s.t.Logf("join of %d bytes, event log of %d", len(body), len(q.Attestation.EventLog))
	a, want := q.Attestation, s.want
	want.Bound = attest.Bound{Ticket: q.Ticket, CSR: q.CSR, HostKey: []byte(q.HostKey), TunnelKey: []byte(q.TunnelKey)}
	s.result, err = attest.Verify(attest.Evidence{
		EK: a.EK, AK: a.AK, Secret: a.Secret, Quote: a.Quote, Signature: a.Signature, PCRs: a.PCRs, EventLog: a.EventLog,
	}, want)
	s.answer(out, join.Refuse(believed, "%+v", s.result), err)
}

// firmwareBoot is a boot through UEFI, of a medium with a unified kernel image and the ticket beside it.
type firmwareBoot struct {
	cmdline string // of the image, where it is not the release's
	evil    bool   // another image than the release's
	change  func(*attest.Expected)
}

// attestation is the whole way of a quote: OVMF measures the image, systemd-stub its sections and the ticket, this program what the stub
// does, and its TPM (swtpm) quotes it to a signer that computed all of it beforehand.
func (w *works) attestation(t *testing.T) {
	for _, program := range []string{"swtpm", efiStubFile, firmwareFile} {
		if _, err := exec.LookPath(program); err != nil && !strings.HasPrefix(program, "/") {
			t.Skipf("SKIPPED: %s is not installed", program)
		}
		if _, err := os.Stat(program); err != nil && strings.HasPrefix(program, "/") {
			t.Skipf("SKIPPED: %s is not there", program)
		}
	}
	// One machine boots three times: it is not the inventory's, it is, and then it has to have been restarted since.
	t.Run("restarted", func(t *testing.T) {
		g, s := w.firmware(t, firmwareBoot{change: func(want *attest.Expected) { want.EndorsementKey = strings.Repeat("ab", 32) }})
		again := func(change func()) {
			s.mu.Lock()
			change()
			s.mu.Unlock()
			g.qmp(map[string]any{"execute": "system_reset"})
		}
		text := g.wait("mayfly-init: refused: " + attest.EKUnknown + ": ")
		w.report(t, attest.EKUnknown)
		if !strings.Contains(text, "machine: measured <nil>\n") {
			t.Errorf("the TPM took nothing:\n%s", text)
		}
		again(func() { s.want.EndorsementKey = s.ek })
		g.wait("mayfly-init: refused: " + believed + ": ")
		w.report(t, believed)
		again(func() {
			if !s.result.Measured || s.result.SecureBoot || s.result.Resets == 0 {
				t.Errorf("got %+v", s.result)
			}
			next := s.result.Resets + 1 // what the coming boot has: as if its reboot had been faked
			s.want.Before = &next
		})
		g.wait("mayfly-init: refused: " + attest.NotRestarted + ": ")
		w.report(t, attest.NotRestarted)
	})
	for _, tt := range []struct {
		name string
		boot firmwareBoot
	}{
		{"changed command line", firmwareBoot{cmdline: image.Cmdline + " debug"}},
		{"evil stub that measures well", firmwareBoot{evil: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, _ := w.firmware(t, tt.boot)
			g.wait("mayfly-init: refused: " + attest.Firmware + ": ")
			w.report(t, attest.Firmware)
		})
	}
}

// firmware starts a machine by its firmware.
func (w *works) firmware(t *testing.T, o firmwareBoot) (*guest, *quoteSigner) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(path string) []byte {
		t.Helper()
		data, err := os.ReadFile(path)
		must(err)
		return data
	}
	stub, kernel := file(filepath.Join(w.dir, release.StubFile)), file(filepath.Join(w.dir, release.KernelFile))
	initrd, err := uki.Initrd(stub, ticket.TrustFile, w.trust)
	must(err)
	const words = " " + caseWord + "join"
	parts := uki.Parts{Stub: file(efiStubFile), Kernel: kernel, Initrd: initrd, Cmdline: image.Cmdline + words, OSRelease: "ID=mayfly\n"}
	released, err := uki.Build(parts)
	must(err)
	if o.cmdline != "" {
		parts.Cmdline = o.cmdline + words
	}
	if o.evil {
		parts.OSRelease = "ID=evil\n"
	}
	started, err := uki.Build(parts)
	must(err)
	s := &quoteSigner{t: t}
	s.want.Nonce, s.want.Secret = bytes.Repeat([]byte{3}, attest.NonceBytes), bytes.Repeat([]byte{4}, attest.SecretBytes)
	s.want.UKI, err = uki.Authenticode(released)
	must(err)
	s.want.Kernel, err = uki.Authenticode(kernel)
	must(err)

	now := time.Now().UTC().Truncate(time.Second)
	sum := sha256.Sum256(released)
	statement := release.Statement{Kind: release.Kind, Fleet: "demo", Version: 1, Least: 1, Profile: release.ProfileCloud, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		MaxAge: 86400, Kernel: w.kernel, Stub: w.stub, Root: w.stub, Cmdline: image.Cmdline, Lock: strings.Repeat("00", 32), MinPolicy: 1,
		UKI: &release.Part{Size: int64(len(released)), SHA256: hex.EncodeToString(sum[:])}, UKIAuthenticode: hex.EncodeToString(s.want.UKI[:]), KernelAuthenticode: hex.EncodeToString(s.want.Kernel[:])}
	statementData, err := statement.Marshal()
	must(err)
	s.want.Release, s.want.Trusts = sha256.Sum256(statementData), []attest.Digest{sha256.Sum256(w.trust)}
	k, err := ticket.New(ticket.Ticket{Fleet: "demo", Domain: "demo.test", Server: "vm", Epoch: 1, Release: hex.EncodeToString(s.want.Release[:]), Mirrors: []string{"http://" + guestGateway + ":1/"},
		Network: ticket.Network{Mode: ticket.Static}, Address: netip.MustParsePrefix(guestAddress), Gateway: netip.MustParseAddr(guestGateway), TPM: ticket.TPMRequired, Disks: ticket.DisksUnbind,
		Controller: netip.AddrPortFrom(netip.MustParseAddr(guestGateway), w.port).String(), Name: ticket.ControllerLabel + ".demo.test", CA: string(w.ca),
		NotAfter: now.Add(30 * time.Minute), MaxAge: 86400, Deadline: now.Add(time.Hour)})
	must(err)
	ticketData, err := k.Marshal()
	must(err)
	sig, err := sshsig.Sign(w.key, ticket.Namespace, ticketData)
	must(err)
	// The stub of a fleet fetches the statement; this one has no network yet, so that it lies beside the ticket.
	files := []uki.Credential{{Name: ticket.File, Data: ticketData}, {Name: ticket.SignatureFile, Data: sig}, {Name: release.StatementFile, Data: statementData}}
	s.want.Extras = uki.Measured(files)
	is, err := uki.Measure(released)
	must(err)
	s.want.Sections = is.Sections
	s.want.Loaded, err = is.Loaded(files)
	must(err)
	s.want.LoadedAlone, err = is.Loaded(nil)
	must(err)
	if o.change != nil {
		o.change(&s.want)
	}
	w.signer.Store(s)
	t.Cleanup(func() { w.signer.Store(nil) })

	g := &guest{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	usb, err := os.Create(filepath.Join(g.dir, "usb"))
	must(err)
	must(medium.USB(usb, started, files))
	must(usb.Close())
	must(os.WriteFile(filepath.Join(g.dir, "vars"), file(variables), 0o600))
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,sata=off,accel=tcg", "-cpu", "max", "-smp", "1", "-m", "512",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + firmwareFile, "-drive", "if=pflash,format=raw,file=vars",
		"-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile=", "-device", "virtio-rng-pci",
		"-device", "qemu-xhci", "-drive", "if=none,id=usb,format=raw,file=usb", "-device", "usb-storage,drive=usb,bootindex=0",
		"-serial", "file:console", "-qmp", "unix:qmp,server=on,wait=off",
		"-chardev", "socket,id=tpm,path=tpm.sock", "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"}
	w.tpm(t, g.dir)
	g.cmd = exec.Command("qemu-system-x86_64", args...)
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
	return g, s
}

// tpm starts swtpm for a machine in dir, and waits for its socket.
func (w *works) tpm(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir=.", "--ctrl", "type=unixio,path=tpm.sock")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(machineLimit); ; {
		if _, err := os.Stat(filepath.Join(dir, "tpm.sock")); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("swtpm does not listen")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
