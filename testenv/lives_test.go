package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/rebuild/join"
	"mayfly/rebuild/power"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
	"mayfly/testenv/netlab"
	"mayfly/testenv/supervise"
	"mayfly/tunnel/checkin"
)

type recordOf = supervise.Record

// life is one boot of a machine that the test begins itself, as `fleetctl rotate` does.
type life struct {
	machine   *power.QEMU
	epoch     uint64
	ticket    ticket.Ticket
	data, sig []byte
}

// shortLife is long enough to boot and join on a busy machine without KVM, and short enough to wait for.
const shortLife = 100 * time.Second

// lives begins two lives of nl-1: one whose ticket is used a second time and which reaches its deadline, and one with a disk.
func lives(t *testing.T, d *demo) {
	const name = "nl-1"
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	s, err := sqlite.Open(ctx, d.e.fleet("store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	first := beginLife(t, ctx, d, s, name, shortLife, power.Options{})
	began := time.Now()
	await(t, ctx, d, name, "the first life has joined and is healthy", func() bool {
		now, err := s.Server(ctx, name)
		var health join.Health
		return err == nil && now.State == inventory.Attesting && now.BootID != "" && json.Unmarshal(now.Health, &health) == nil && health.Ready
	})
	// Somebody has copied the ticket and joins with keys of their own.
	refusal := joinAgain(t, ctx, d, first)
	if refusal.Reason == "" || !strings.Contains(refusal.Reason, "ticket") {
		t.Errorf("second use of a ticket: got reason %q, want one of the ticket", refusal.Reason)
	}
	if revoked, err := s.Revoked(ctx, name, first.epoch); err != nil || !revoked {
		t.Errorf("second use of a ticket: the first life is revoked: got %v, %v, want true", revoked, err)
	}
	heard, at := time.Time{}, time.Now()
	await(t, ctx, d, name, "the first life is cut off", func() bool {
		now, err := s.Server(ctx, name)
		if err != nil {
			return false
		}
		if !now.HealthAt.Equal(heard) {
			heard, at = now.HealthAt, time.Now()
		}
		return time.Since(at) > 4*join.HealthInterval
	})
	await(t, ctx, d, name, "the machine ends itself at its deadline", func() bool {
		status, err := first.machine.Status(ctx)
		return err == nil && !status.On
	})
	if lived := time.Since(began); lived > shortLife+60*time.Second {
		t.Errorf("it lived %s, want about %s", lived, shortLife)
	}

	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	second := beginLife(t, ctx, d, s, name, time.Hour, power.Options{Extra: []string{
		"-drive", "file=" + disk + ",format=raw,if=none,id=disk0", "-device", "virtio-blk-pci,drive=disk0",
	}})
	await(t, ctx, d, name, "the machine with a disk refuses and reports", func() bool {
		reason, _, ok, err := s.LastFailure(ctx, name, second.epoch)
		return err == nil && ok && reason == "disk_present"
	})
	if err := second.machine.Off(ctx); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(disk)
	if err != nil || !bytes.Equal(after, make([]byte, 1<<20)) {
		t.Errorf("the disk was changed (%v)", err)
	}
}

// beginLife ends a server's life and begins the next, with a ticket of this age and a machine with these options.
func beginLife(t *testing.T, ctx context.Context, d *demo, s store.Store, name string, age time.Duration, options power.Options) life {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(d.e.fleet("fleet.toml"))
	check(err)
	fleet, err := inventory.Parse("fleet.toml", text)
	check(err)
	server, _ := fleet.Server(name)
	now, err := s.Server(ctx, name)
	check(err)
	from := now.State
	if from == inventory.Serving {
		check(s.Move(ctx, name, now.Epoch, from, inventory.Draining, "test", time.Now()))
		from = inventory.Draining
	}
	l := life{}
	l.epoch, err = s.BeginLife(ctx, name, now.Epoch, from, "test", time.Now(), nil)
	check(err)
	l.machine, err = power.OpenQEMU(server, d.e.fleet("machines"), options, slog.New(slog.DiscardHandler))
	check(err)
	check(l.machine.Off(ctx))
	check(s.Move(ctx, name, l.epoch, inventory.Wiping, inventory.Booting, "test", time.Now()))
	statement, err := os.ReadFile(d.e.fleet("public", "releases", releaseVersion, release.StatementFile))
	check(err)
	parsed, err := release.Parse(statement)
	check(err)
	config, err := checkin.LoadConfig(d.clientConfig())
	check(err)
	trust, err := os.ReadFile(d.e.fleet("trust.json"))
	check(err)
	l.ticket, err = issue.New(fleet, name, issue.Life{Epoch: l.epoch, Release: sha256.Sum256(statement), Path: "/releases/" + releaseVersion + "/",
		CA: []byte(config.CA), NotAfter: time.Now().Add(5 * time.Minute), MaxAge: age, Made: time.Now(),
		TPM: ticket.TPMOff, Disks: ticket.DisksRefuse})
	check(err)
	l.data, l.sig, err = signer.Dial(d.e.fleet()).Ticket(ctx, l.ticket)
	check(err)
	check(s.PutTicket(ctx, name, l.epoch, ticket.Hash(l.data), l.ticket.NotAfter))
	// The machine's tap is inside core, and so is who starts it; the mark lets `down` find it.
	t.Setenv(supervise.Mark, d.e.dir)
	check(d.e.lab.Core.Do(func() error {
		return l.machine.On(ctx, power.Boot{Epoch: l.epoch, Trust: trust,
			Kernel: power.File{Path: d.e.fleet("public", "releases", releaseVersion, release.KernelFile), Signed: parsed.Kernel},
			Stub:   power.File{Path: d.e.fleet("public", "releases", releaseVersion, release.StubFile), Signed: parsed.Stub},
			Ticket: l.data, TicketSig: l.sig, Cmdline: parsed.Cmdline})
	}))
	return l
}

// joinAgain joins with a ticket that was used, and returns the refusal.
func joinAgain(t *testing.T, ctx context.Context, d *demo, l life) (refusal struct{ Reason, Detail string }) {
	t.Helper()
	_, csr, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := csr(l.ticket.ServerName())
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(join.Request{
		Ticket: l.data, Signature: l.sig, CSR: request, HostKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(host))),
		TunnelKey: base64.StdEncoding.EncodeToString(tunnel.PublicKey().Bytes()), BootID: "01234567-89ab-cdef-0123-456789abcdef",
	})
	if err != nil {
		t.Fatal(err)
	}
	web := webFrom(d.e.lab.Core, netlab.Controller, []byte(l.ticket.CA), l.ticket.Name, l.ticket.Controller)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.ticket.Name+join.PathJoin, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		t.Errorf("the second join was admitted: %s", data)
	}
	if err := json.Unmarshal(data, &refusal); err != nil {
		t.Errorf("reading the refusal %q: %v", data, err)
	}
	return refusal
}

// await waits for a state of the fleet, and shows the machine's console when it does not come.
func await(t *testing.T, ctx context.Context, d *demo, name, what string, done func() bool) {
	t.Helper()
	limit, cancel := context.WithTimeoutCause(ctx, bootLimit, errors.New("too long"))
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-limit.Done():
			t.Fatalf("waited in vain: %s; the console ends:\n%s", what, supervise.Tail(d.e.fleet("machines", name, "console.log"), 12))
		case <-tick.C:
		}
	}
}
