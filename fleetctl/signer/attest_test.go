package signer

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/tpm"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
	"mayfly/rebuild/uki"
	"mayfly/testenv/swtpm"
	"mayfly/testenv/tinyefi"
)

// What the firmware of these tests starts.
var (
	testParts           = uki.Parts{Stub: tinyefi.Image(""), Kernel: tinyefi.Image("kernel"), Initrd: []byte("initramfs"), Cmdline: "quiet", OSRelease: "ID=mayfly\n"}
	testImage           = computed(uki.Build(testParts))
	testUKI, testKernel = computed(uki.Authenticode(testImage)), computed(uki.Authenticode(testParts.Kernel))
)

func computed[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// firmwareOf is a boot of testImage in which the firmware starts these.
func firmwareOf(image, kernel [32]byte) []swtpm.Event {
	events := slices.DeleteFunc(swtpm.Firmware(image, kernel), func(e swtpm.Event) bool { return e.PCR == 9 || e.PCR == 11 })
	for _, s := range []string{".linux\x00", string(testParts.Kernel), ".osrel\x00", testParts.OSRelease, ".cmdline\x00", testParts.Cmdline, ".initrd\x00", string(testParts.Initrd)} {
		events = append(events, swtpm.Told(11, swtpm.IPL, s))
	}
	return append(events, swtpm.Told(9, 6, "q\x00u\x00i\x00e\x00t\x00\x00\x00"), swtpm.Told(9, 6, string(testParts.Initrd)))
}

// attested is a fleet whose policy asks for a quote of its one server, with a release that has a unified kernel image.
type attested struct {
	*fleet
	signer *server
	chip   *swtpm.TPM
	data   []byte // release.json
	now    time.Time
	epoch  uint64
	on     *booted // the machine that holds the TPM
}

// restart takes the power away and gives it back.
func (a *attested) restart() {
	if a.on != nil {
		a.on.off()
	}
	a.chip.Restart()
}

func newAttested(t *testing.T) *attested {
	t.Helper()
	a := &attested{chip: swtpm.Start(t), now: time.Now().UTC()}
	a.fleet = newFleet(t)
	a.require(t, a.chip)
	a.data, _ = a.release(t, 7, withImage)
	a.signer = offline(t, a.fleet)
	return a
}

// withImage gives a release a unified kernel image.
func withImage(s *release.Statement) {
	s.UKI = &release.Part{Size: int64(len(testImage)), SHA256: sum(testImage)}
	s.UKIAuthenticode, s.KernelAuthenticode = hex.EncodeToString(testUKI[:]), hex.EncodeToString(testKernel[:])
}

// require has the policy ask for a quote, and the inventory name this TPM.
func (f *fleet) require(t *testing.T, chip *swtpm.TPM) {
	t.Helper()
	id, err := tpm.New(chip.Dial(), tpm.P256)
	if err != nil {
		t.Fatal(err)
	}
	f.required = []byte("statement\n")
	f.inv.Servers[0].EndorsementKey = attest.EndorsementHash(id.EK)
	if err := id.Close(); err != nil {
		t.Fatal(err)
	}
	f.change = func(p *policies.Policy) { p.Image.TPM = policies.TPMRequired }
	f.sign(t, 1)
}

// booted is a machine that has booted a ticket and has made its keys.
type booted struct {
	t      *testing.T
	keys   machineKeys
	ticket signedFile
	id     *tpm.Identity
	log    []byte
}

// ticketOf has the signer sign a ticket of the next life.
func (a *attested) ticketOf(t *testing.T) signedFile {
	t.Helper()
	a.epoch++
	tk, err := issue.New(a.inv, testServer, issue.Life{
		Epoch: a.epoch, Release: ticket.Hash(a.data), Path: "/releases/7/", CA: a.public.TLSCA,
		NotAfter: a.now.Add(5 * time.Minute), MaxAge: time.Hour, Made: a.now, TPM: ticket.TPMRequired, Disks: ticket.DisksRefuse,
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := a.signer.ticket(tk, a.now)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// boot restarts the TPM, measures what firmware and stub measure, and makes keys.
func (a *attested) boot(t *testing.T, tk signedFile, events []swtpm.Event) *booted {
	t.Helper()
	a.restart()
	a.on = bootOn(t, a.chip, a.data, a.read(t, "trust.json"), tk, events)
	return a.on
}

func (f *fleet) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func bootOn(t *testing.T, chip *swtpm.TPM, statement, trust []byte, tk signedFile, events []swtpm.Event) *booted {
	t.Helper()
	chip.Measure(events)
	chip.Extend(attest.ReleasePCR, sha256.Sum256(statement), sha256.Sum256(trust), sha256.Sum256(tk.Data))
	return keysOn(t, chip, tk, events)
}

// keysOn makes a machine's keys without a boot before.
func keysOn(t *testing.T, chip *swtpm.TPM, tk signedFile, events []swtpm.Event) *booted {
	t.Helper()
	id, err := tpm.New(chip.Dial(), tpm.P256)
	if err != nil {
		t.Fatal(err)
	}
	b := &booted{t: t, keys: newMachine(t), ticket: tk, id: id, log: swtpm.Log(events)}
	t.Cleanup(b.off)
	return b
}

// off lets go of the TPM.
func (b *booted) off() {
	if b.id == nil {
		return
	}
	if err := b.id.Close(); err != nil {
		b.t.Error(err)
	}
	b.id = nil
}

func (b *booted) asks() join.ChallengeRequest {
	return join.ChallengeRequest{Ticket: b.ticket.Data, Signature: b.ticket.Signature, EK: b.id.EK, AK: b.id.AK}
}

// answer is the request to join of a machine that was asked this.
func (b *booted) answer(c join.Challenge) join.Request {
	b.t.Helper()
	secret, err := b.id.Activate(c.Blob, c.Encrypted)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.quote(c.Nonce, secret)
}

func (b *booted) quote(nonce, secret []byte) join.Request {
	b.t.Helper()
	r := b.keys.request(b.ticket.Data, b.ticket.Signature)
	q, err := b.id.Quote(attest.Qualifying(nonce, secret, attest.Bound{Ticket: r.Ticket, CSR: r.CSR, HostKey: []byte(r.HostKey), TunnelKey: []byte(r.TunnelKey)}))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Attestation = &join.Attestation{
		Nonce: nonce, EK: b.id.EK, AK: b.id.AK, Secret: secret, Quote: q.Quote, Signature: q.Signature, PCRs: q.PCRs, EventLog: b.log,
	}
	return r
}

// refusals returns the reasons of what the log has of machines that were not believed.
func (f *fleet) refusals(t *testing.T) []string {
	t.Helper()
	var all []string
	_, err := audit.Read(filepath.Join(f.dir, keyDir, logDir), 0, func(_ uint64, text []byte) error {
		if bytes.Contains(text, []byte(`"attestation_refused"`)) {
			all = append(all, string(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAttest goes through two lives of a server whose TPM proves them.
func TestAttest(t *testing.T) {
	a := newAttested(t)
	for life := range 2 {
		b := a.boot(t, a.ticketOf(t), firmwareOf(testUKI, testKernel))
		c, err := a.signer.challenge(b.asks(), a.now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.signer.admit(b.answer(c), a.now)
		if err != nil || got.Evidence != ledger.Attested || len(got.TLS) == 0 {
			t.Fatalf("life %d: got %q, %v", life, got.Evidence, err)
		}
		b.off()
	}
	v, err := a.signer.lives.load(testServer)
	if err != nil || v.Evidence != ledger.Attested || v.EK != a.inv.Servers[0].EndorsementKey || v.Resets == 0 {
		t.Errorf("got %+v, %v", v, err)
	}
	if all := a.refusals(t); len(all) != 0 {
		t.Errorf("refused: %q", all)
	}
}

// TestAttestRefuses: each machine that is another one, or runs otherwise, gets no certificate, and the log says why.
func TestAttestRefuses(t *testing.T) {
	good := firmwareOf(testUKI, testKernel)
	evil := sha256.Sum256([]byte("evil"))
	tests := []struct {
		name string
		want string
		join func(t *testing.T, a *attested) error
	}{
		{"no quote", attest.Missing, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			return a.admits(b.keys.request(b.ticket.Data, b.ticket.Signature))
		}},
		{"wrong TPM", attest.EKUnknown, func(t *testing.T, a *attested) error {
			b := bootOn(t, swtpm.Start(t), a.data, a.read(t, "trust.json"), a.ticketOf(t), good)
			_, err := a.signer.challenge(b.asks(), a.now)
			if err == nil || !strings.Contains(err.Error(), attest.EndorsementHash(b.id.EK)) {
				t.Errorf("got %v, which does not show the key's hash", err)
			}
			return err
		}},
		{"endorsement key of the inventory, attestation key of another TPM", attest.SecretWrong, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			other := bootOn(t, swtpm.Start(t), a.data, a.read(t, "trust.json"), b.ticket, good)
			asks := other.asks()
			asks.EK = b.id.EK
			c, err := a.signer.challenge(asks, a.now)
			if err != nil {
				t.Fatal(err)
			}
			if secret, err := b.id.Activate(c.Blob, c.Encrypted); err == nil {
				t.Errorf("the TPM gave out %x", secret)
			}
			r := other.quote(c.Nonce, bytes.Repeat([]byte{1}, attest.SecretBytes)) // guessed
			r.Attestation.EK = b.id.EK
			return a.admits(r)
		}},
		{"software in place of a TPM's key", attest.AKRefused, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			asks := b.asks()
			asks.AK = bytes.Clone(asks.AK)
			asks.AK[5] ^= 2 // fixedTPM
			_, err := a.signer.challenge(asks, a.now)
			return err
		}},
		{"replayed quote", attest.NonceWrong, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			old := b.answer(a.ask(t, b))
			c := a.ask(t, b)
			r := b.answer(c)
			r.Attestation.Quote, r.Attestation.Signature = old.Attestation.Quote, old.Attestation.Signature
			return a.admits(r)
		}},
		{"relayed quote: the keys are another machine's", attest.NonceWrong, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			r := b.answer(a.ask(t, b))
			thief := newMachine(t).request(b.ticket.Data, b.ticket.Signature)
			thief.Attestation = r.Attestation
			return a.admits(thief)
		}},
		{"relayed quote: the tunnel's key is another machine's", attest.NonceWrong, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			r := b.answer(a.ask(t, b))
			r.TunnelKey = base64.StdEncoding.EncodeToString(append([]byte{7}, make([]byte, 31)...))
			return a.admits(r)
		}},
		{"changed command line", attest.Cmdline, func(t *testing.T, a *attested) error {
			return a.whole(t, append(append([]swtpm.Event{}, good...), swtpm.Told(12, swtpm.IPL, "init=/bin/sh")))
		}},
		{"evil stub that measures well", attest.Firmware, func(t *testing.T, a *attested) error {
			return a.whole(t, firmwareOf(evil, testKernel))
		}},
		{"evil kernel", attest.Firmware, func(t *testing.T, a *attested) error { return a.whole(t, firmwareOf(testUKI, evil)) }},
		{"another application before the image", attest.Firmware, func(t *testing.T, a *attested) error {
			return a.whole(t, append(append([]swtpm.Event{}, good[:5]...), append([]swtpm.Event{swtpm.Started(evil)}, good[5:]...)...))
		}},
		{"firmware that measures nothing", attest.Firmware, func(t *testing.T, a *attested) error { return a.whole(t, nil) }},
		{"other release", attest.Release, func(t *testing.T, a *attested) error {
			tk := a.ticketOf(t)
			a.restart()
			b := bootOn(t, a.chip, []byte("evil"), a.read(t, "trust.json"), tk, good)
			a.on = b
			return a.admits(b.answer(a.ask(t, b)))
		}},
		{"other trust policy", attest.Release, func(t *testing.T, a *attested) error {
			tk := a.ticketOf(t)
			a.restart()
			b := bootOn(t, a.chip, a.data, []byte("evil"), tk, good)
			a.on = b
			return a.admits(b.answer(a.ask(t, b)))
		}},
		{"ticket of another boot", attest.Release, func(t *testing.T, a *attested) error {
			old := a.ticketOf(t)
			b := a.boot(t, old, good)
			b.ticket = a.ticketOf(t)
			return a.admits(b.answer(a.ask(t, b)))
		}},
		{"event log altered", attest.LogRefused, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), firmwareOf(evil, testKernel))
			b.log = swtpm.Log(good)
			return a.admits(b.answer(a.ask(t, b)))
		}},
		{"event log truncated", attest.LogRefused, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			b.log = b.log[:len(b.log)-1]
			return a.admits(b.answer(a.ask(t, b)))
		}},
		{"faked reboot", attest.NotRestarted, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			if err := a.admits(b.answer(a.ask(t, b))); err != nil {
				t.Fatal(err)
			}
			b.off()
			// The machine goes on; whoever holds it has the next life's ticket.
			again := keysOn(t, a.chip, a.ticketOf(t), good)
			a.on = again
			return a.admits(again.answer(a.ask(t, again)))
		}},
		{"challenge answered twice", join.ChallengeUnknown, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			c := a.ask(t, b)
			r := b.answer(c)
			r.Attestation.Secret = make([]byte, attest.SecretBytes)
			if err := a.admits(r); reason(err) != attest.SecretWrong {
				t.Errorf("the first answer: %v", err)
			}
			return a.admits(b.answer(c))
		}},
		{"challenge of nobody", join.ChallengeUnknown, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			return a.admits(b.quote(make([]byte, 32), make([]byte, 32)))
		}},
		{"challenge expired", join.ChallengeExpired, func(t *testing.T, a *attested) error {
			tk := a.ticketOf(t)
			b := a.boot(t, tk, good)
			r := b.answer(a.ask(t, b))
			a.signer.asked.open[string(r.Attestation.Nonce)] = func(c challenge) challenge {
				c.expires = a.now.Add(-time.Second)
				return c
			}(a.signer.asked.open[string(r.Attestation.Nonce)])
			return a.admits(r)
		}},
		{"challenge of another ticket", join.ChallengeOther, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			c := a.ask(t, b)
			b.ticket = a.ticketOf(t)
			return a.admits(b.answer(c))
		}},
		{"challenge of another attestation key", join.ChallengeOther, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			c := a.ask(t, b)
			b.off()
			again := keysOn(t, a.chip, b.ticket, good)
			a.on = again
			return a.admits(again.quote(c.Nonce, make([]byte, attest.SecretBytes)))
		}},
		{"too many challenges", join.ChallengeLimit, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			for range maxChallengesOfServer {
				a.ask(t, b)
			}
			_, err := a.signer.challenge(b.asks(), a.now)
			return err
		}},
		{"secret of nothing", attest.SecretWrong, func(t *testing.T, a *attested) error {
			b := a.boot(t, a.ticketOf(t), good)
			c := a.ask(t, b)
			return a.admits(b.quote(c.Nonce, nil))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAttested(t)
			err := tt.join(t, a)
			if reason(err) != tt.want {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			all := a.refusals(t)
			if len(all) == 0 || !strings.Contains(all[len(all)-1], `"`+tt.want+`"`) {
				t.Errorf("the log has %q", all)
			}
			// The same server comes in when it behaves.
			a.now = a.now.Add(2 * challengeLife)
			if err := a.whole(t, good); err != nil {
				t.Errorf("a good boot after that: %v", err)
			}
		})
	}
}

// TestSecondUseAttested: whoever brings a used ticket revokes what the first use got, with or without a quote.
func TestSecondUseAttested(t *testing.T) {
	a := newAttested(t)
	b := a.boot(t, a.ticketOf(t), firmwareOf(testUKI, testKernel))
	if err := a.admits(b.answer(a.ask(t, b))); err != nil {
		t.Fatal(err)
	}
	if _, err := a.signer.challenge(b.asks(), a.now); reason(err) != join.TicketUsed {
		t.Errorf("a challenge for a used ticket: got %v", err)
	}
	thief := newMachine(t)
	if err := a.admits(thief.request(b.ticket.Data, b.ticket.Signature)); reason(err) != join.TicketUsed {
		t.Errorf("a second use: got %v", err)
	}
	if v, err := a.signer.lives.load(testServer); err != nil || !v.Revoked {
		t.Errorf("got %+v, %v", v, err)
	}
}

// TestNotAttested: where the policy asks for no quote, a life is what it can be.
func TestNotAttested(t *testing.T) {
	for driver, want := range map[string]string{"qemu": ledger.Claimed, inventory.DriverContainer: ledger.Unverified} {
		f := newFleet(t)
		f.inv.Servers[0].Power.Driver = driver
		s := &server{rules: &rules{}}
		b := &bundle.Bundle{Inventory: f.inv, Policy: testPolicy(1)}
		if p, err := s.prove(join.Request{}, &ticket.Ticket{Server: testServer}, b, time.Now()); err != nil || p != (proof{Evidence: want}) {
			t.Errorf("%s: got %+v, %v", driver, p, err)
		}
	}
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	signed, err := s.ticket(f.newTicket(t, 1), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.challenge(join.ChallengeRequest{Ticket: signed.Data, Signature: signed.Signature}, now); reason(err) != join.RequestInvalid {
		t.Errorf("a challenge that nobody needs: got %v", err)
	}
	if got, err := s.admit(newMachine(t).request(signed.Data, signed.Signature), now); err != nil || got.Evidence != ledger.Claimed {
		t.Errorf("got %q, %v", got.Evidence, err)
	}
}

// TestChallengesBounded: what nobody answers goes away, and never takes more room than there is.
func TestChallengesBounded(t *testing.T) {
	var c challenges
	now := time.Now()
	put := func(i int, now time.Time) error {
		return c.put(challenge{server: fmt.Sprint(i / maxChallengesOfServer), nonce: fmt.Append(nil, i), expires: now.Add(challengeLife)}, now)
	}
	for i := range maxChallenges {
		if err := put(i, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(maxChallenges, now); reason(err) != join.ChallengeLimit {
		t.Errorf("one more: got %v", err)
	}
	late := now.Add(challengeLife + time.Second)
	if err := put(maxChallenges, late); err != nil {
		t.Errorf("after their end: %v", err)
	}
	if _, err := c.take(&join.Attestation{Nonce: []byte("0")}, "0", [32]byte{}, late); reason(err) != join.ChallengeExpired {
		t.Errorf("a late answer: got %v", err)
	}
	if err := put(maxChallenges+1, late.Add(challengeLife)); err != nil || len(c.open) != 2 {
		t.Errorf("got %d, %v", len(c.open), err)
	}
}

// TestAttestedJoin goes the whole way: over TLS, through the controller, into store, ledger and list.
func TestAttestedJoin(t *testing.T) {
	chip := swtpm.Start(t)
	f := withLedger(t)
	f.require(t, chip)
	a := &attested{fleet: f, chip: chip, now: time.Now().UTC()}
	var sigs []byte
	a.data, sigs = f.release(t, 7, withImage)
	f.start(t)
	if _, _, err := f.client.LogRelease(t.Context(), a.data, sigs); err != nil {
		t.Fatal(err)
	}
	f.required = a.data
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	b := a.boot(t, signedFile{Data: data, Signature: sig}, firmwareOf(testUKI, testKernel))
	asked, err := c.Challenge(t.Context(), b.asks())
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Join(t.Context(), b.answer(asked))
	if err != nil || got.Evidence != ledger.Attested {
		t.Fatalf("got %q, %v", got.Evidence, err)
	}
	if s, err := f.store.Server(t.Context(), testServer); err != nil || s.Evidence != ledger.Attested {
		t.Errorf("the store has %+v, %v", s, err)
	}
	all := f.entries(t)
	if begin := all[len(all)-1].Begin; begin == nil || begin.Evidence != ledger.Attested {
		t.Errorf("the ledger has %+v", all[len(all)-1])
	}
	if _, err := c.Challenge(t.Context(), b.asks()); reason(err) != join.StateWrong {
		t.Errorf("a challenge after the join: got %v", err)
	}
}

// TestOlderTrusts: a server may begin with a trust policy that the one in force follows from, and with no other.
func TestOlderTrusts(t *testing.T) {
	dir := t.TempDir()
	tr := trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 1}
	for _, person := range []string{"ana", "bo"} {
		tr.Approvers = append(tr.Approvers, trust.Person{Name: person, Keys: []string{trust.FormatKey(newSSHSigner(t).PublicKey())}})
	}
	tr.TicketKeys, tr.ListKeys = []string{trust.FormatKey(newSSHSigner(t).PublicKey())}, []string{trust.FormatKey(newSSHSigner(t).PublicKey())}
	var sums []string
	for version := uint64(1); version <= maxOlderTrusts+4; version++ {
		tr.Version = version
		data, err := tr.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := chain.Write(dir, version, data, []byte("signatures\n")); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum(data))
		if version < maxOlderTrusts+4 {
			tr.Previous = sum(data)
		}
	}
	got, err := olderTrusts(&tr, dir)
	if err != nil || len(got) != maxOlderTrusts+1 {
		t.Fatalf("got %d, %v", len(got), err)
	}
	for i, d := range got {
		if hex.EncodeToString(d[:]) != sums[len(sums)-1-i] {
			t.Errorf("policy %d: got %x", len(sums)-i, d)
		}
	}
	// A file that is not what the policy after it names ends it.
	if err := os.WriteFile(chain.File(dir, tr.Version-2), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := olderTrusts(&tr, dir); err != nil || len(got) != 3 {
		t.Errorf("got %d, %v", len(got), err)
	}
}

// ask asks a machine's TPM.
func (a *attested) ask(t *testing.T, b *booted) join.Challenge {
	t.Helper()
	c, err := a.signer.challenge(b.asks(), a.now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a *attested) admits(r join.Request) error {
	_, err := a.signer.admit(r, a.now)
	return err
}

// whole is a boot with this firmware, to its end.
func (a *attested) whole(t *testing.T, events []swtpm.Event) error {
	t.Helper()
	b := a.boot(t, a.ticketOf(t), events)
	return a.admits(b.answer(a.ask(t, b)))
}
