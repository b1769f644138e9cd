package signer

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/audit"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/boot"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
)

// withLedger makes the trust policy name the signer's own key.
func withLedger(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t)
	f.trust.LedgerKeys = []string{f.public.LedgerKey}
	data, err := f.trust.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "trust.json", data)
	return f
}

// release signs a release and puts it where the boot port has it.
func (f *fleet) release(t *testing.T, version uint64, change func(*release.Statement)) (data, sigs []byte) {
	t.Helper()
	part := release.Part{Size: 3, SHA256: strings.Repeat("ab", 32)}
	s := release.Statement{Kind: release.Kind, Fleet: f.inv.Name, Version: version, Least: 1, Profile: release.ProfileCloud,
		NotBefore: time.Now().Add(-time.Hour).UTC().Truncate(time.Second), NotAfter: time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second),
		MaxAge: 7200, Kernel: part, Stub: part, Root: part, Lock: strings.Repeat("cd", 32), MinPolicy: 1}
	if change != nil {
		change(&s)
	}
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.people {
		sig, err := sshsig.Sign(p, release.Namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, sig...)
	}
	dir := filepath.Join(f.dir, "public", "releases", fmt.Sprint(version))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{release.StatementFile: data, release.SignaturesFile: sigs, release.UKIFile: testImage} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return data, sigs
}

// ticketFor asks the signer for a ticket of a release.
func (f *fleet) ticketFor(t *testing.T, epoch, version uint64, statement []byte) ticket.Ticket {
	t.Helper()
	tk, err := issue.New(f.inv, testServer, issue.Life{
		Epoch: epoch, Release: ticket.Hash(statement), Path: boot.ReleasePath(version), CA: f.public.TLSCA,
		NotAfter: time.Now().Add(5 * time.Minute), MaxAge: time.Hour, Made: time.Now(), TPM: ticket.TPMOff, Disks: ticket.DisksRefuse,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

// entries reads the ledger as it lies there.
func (f *fleet) entries(t *testing.T) []ledger.Entry {
	t.Helper()
	var all []ledger.Entry
	_, err := audit.Read(LedgerDir(f.dir), 0, func(_ uint64, text []byte) error {
		e, err := ledger.Parse(text)
		all = append(all, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func events(all []ledger.Entry) string {
	var text []string
	for _, e := range all {
		switch {
		case e.End != nil:
			text = append(text, fmt.Sprintf("end %d %s", e.End.Epoch, e.End.Reason))
		case e.Begin != nil:
			text = append(text, fmt.Sprintf("begin %d", e.Begin.Epoch))
		default:
			text = append(text, e.Event)
		}
	}
	return strings.Join(text, ", ")
}

// TestLedger goes through lives: each is in the ledger before it has a certificate, with the release that it runs.
func TestLedger(t *testing.T) {
	f := withLedger(t)
	s := offline(t, f)
	data, _ := f.release(t, 7, nil)
	now := time.Now().UTC()
	admit := func(epoch uint64) (ticket.Ticket, signedFile, join.Admission, error) {
		tk := f.ticketFor(t, epoch, 7, data)
		signed, err := s.ticket(tk, now)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := s.admit(newMachine(t).request(signed.Data, signed.Signature), now)
		return tk, signed, certs, err
	}
	tk, signed, certs, err := admit(1)
	if err != nil || certs.Ledger == nil {
		t.Fatalf("got %+v, %v", certs, err)
	}
	all := f.entries(t)
	if got := events(all); got != "trust, release, begin 1" {
		t.Fatalf("the ledger has %s", got)
	}
	begin := all[certs.Ledger.Index].Begin
	if begin == nil || begin.Server != testServer || begin.Release != 7 || begin.ReleaseSHA256 != sum(data) || !begin.Deadline.Equal(tk.Deadline) ||
		!begin.Began.Equal(tk.Deadline.Add(-time.Hour)) || begin.Evidence != ledger.Claimed || begin.TLSKey == "" || begin.HostKey == "" {
		t.Errorf("the record of the life is %+v", begin)
	}
	if leaf := certs.NotAfter; leaf.After(begin.Deadline) {
		t.Errorf("a certificate until %s, the ledger says %s", leaf, begin.Deadline)
	}

	// The controller says that it is over; once is enough, and not for the next one.
	for i, want := range []bool{true, false} {
		if a, err := s.end(endRequest{Server: testServer, Through: 1, Reason: ledger.Rotated}, now); err != nil || a.Logged != want {
			t.Errorf("end %d: got %+v, %v", i, a, err)
		}
	}
	// The next one's end nobody says; the one after begins.
	if _, _, _, err := admit(2); err != nil {
		t.Fatal(err)
	}
	if a, err := s.end(endRequest{Server: testServer, Through: 1, Reason: ledger.Rotated}, now); err != nil || a.Logged {
		t.Errorf("the end of an earlier life: got %+v, %v", a, err)
	}
	_, signed, _, err = admit(3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.admit(newMachine(t).request(signed.Data, signed.Signature), now); reason(err) != join.TicketUsed {
		t.Errorf("second use: got %v", err)
	}
	want := "trust, release, begin 1, end 1 rotated, begin 2, end 2 superseded, begin 3, end 3 revoked"
	if got := events(f.entries(t)); got != want {
		t.Errorf("the ledger has %s, want %s", got, want)
	}
	for _, bad := range []endRequest{{testServer, 9, "because"}, {testServer, 9, ledger.Revoked}} {
		if _, err := s.end(bad, now); reason(err) != join.RequestInvalid {
			t.Errorf("end %+v: got %v", bad, err)
		}
	}
	if a, err := s.end(endRequest{"nobody", 9, ledger.Rotated}, now); err != nil || a.Logged {
		t.Errorf("the end of a server that never lived: got %+v, %v", a, err)
	}

	// A signer that is started again knows what it wrote.
	if err := s.book.close(); err != nil {
		t.Fatal(err)
	}
	if s.book, err = s.openLedger(f.dir); err != nil {
		t.Fatal(err)
	}
	if a, err := s.end(endRequest{testServer, 9, ledger.Rotated}, now); err != nil || a.Logged {
		t.Errorf("a life that was over before the restart: got %+v, %v", a, err)
	}
	if _, _, _, err := admit(4); err != nil {
		t.Fatal(err)
	}
	late := now.Add(3 * time.Hour)
	if a, err := s.end(endRequest{testServer, 4, ledger.Failed}, late); err != nil || !a.Logged {
		t.Errorf("the end after the deadline: got %+v, %v", a, err)
	}
	all = f.entries(t)
	if last := all[len(all)-1].End; last == nil || last.Reason != ledger.Passed || !last.Ended.Equal(all[len(all)-2].Begin.Deadline) {
		t.Errorf("the last record is %+v, want that its deadline passed", last)
	}
}

// TestLedgerKeepsOut has one row for each release that no ticket is signed for, or no life begins under.
func TestLedgerKeepsOut(t *testing.T) {
	f := withLedger(t)
	s := offline(t, f)
	now := time.Now().UTC()
	old, _ := f.release(t, 3, nil)
	data, sigs := f.release(t, 7, func(s *release.Statement) { s.Least = 5 })
	oldTicket := f.ticketFor(t, 1, 3, old)
	signed, err := s.ticket(oldTicket, now)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := s.logRelease(releaseRequest{data, sigs}, now); err != nil || a.Index != 2 {
		t.Fatalf("got %+v, %v", a, err)
	}
	m := newMachine(t)
	if _, err := s.admit(m.request(signed.Data, signed.Signature), now); reason(err) != join.ReleaseFrozen {
		t.Errorf("a life under a release older than the newest allows: got %v", err)
	}
	if got := events(f.entries(t)); got != "trust, release, release" {
		t.Errorf("the ledger has %s", got)
	}
	// What is refused used nothing up.
	if v, err := s.lives.load(testServer); err != nil || v.Epoch != 0 || len(v.Tickets) != 0 {
		t.Errorf("the signer remembers %+v, %v", v, err)
	}
	unlogged := f.ticketFor(t, 1, 8, []byte("nothing"))
	future := f.ticketFor(t, 1, 7, data)
	future.Deadline = future.Deadline.Add(2 * time.Minute)
	for name, tt := range map[string]struct {
		tk   ticket.Ticket
		want string
	}{
		"not in the ledger and nowhere else": {unlogged, join.ReleaseUnlogged},
		"older than the newest allows":       {oldTicket, join.ReleaseFrozen},
		"made in time to come":               {future, join.LifetimeTooLong},
	} {
		if _, err := s.ticket(tt.tk, now); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	if _, err := s.ticket(f.ticketFor(t, 1, 7, data), now); err != nil {
		t.Error(err)
	}
}

// TestLogRelease has one row for each release that does not get into the ledger.
func TestLogRelease(t *testing.T) {
	f := withLedger(t)
	f.start(t)
	ctx := t.Context()
	data, sigs := f.release(t, 7, nil)
	index, proof, err := f.client.LogRelease(ctx, data, append([]byte("rubbish\n"), sigs...))
	if err != nil || index != 1 {
		t.Fatalf("got %d, %v", index, err)
	}
	if again, _, err := f.client.LogRelease(ctx, data, sigs); err != nil || again != index {
		t.Errorf("once more: got %d, %v", again, err)
	}
	keys, err := ledger.KeysOf(f.trust)
	if err != nil {
		t.Fatal(err)
	}
	p, err := keys.Open(proof)
	if err != nil || p.Index != index || p.Entry.Release.Statement != string(data) || !bytes.Equal([]byte(p.Entry.Release.Signatures), sigs) {
		t.Errorf("the proof shows %+v, %v", p, err)
	}
	if err := release.CheckProof(f.trust, data, proof); err != nil {
		t.Errorf("as a machine that boots reads it: %v", err)
	}
	other, otherSigs := f.release(t, 7, func(s *release.Statement) { s.Name = "another" })
	expired, expiredSigs := f.release(t, 8, func(s *release.Statement) { s.NotAfter = time.Now().Add(-time.Minute).UTC().Truncate(time.Second) })
	foreign, foreignSigs := f.release(t, 9, func(s *release.Statement) { s.Fleet = "else" })
	one, err := sshsig.Split(sigs, 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		data, sigs []byte
		want       string
	}{
		"a second release of a version": {other, otherSigs, join.ReleaseForked},
		"one signature short":           {data, one[0], release.Unsigned},
		"over":                          {expired, expiredSigs, release.Expired},
		"another fleet's":               {foreign, foreignSigs, release.OtherFleet},
		"altered":                       {append(bytes.Clone(data), ' '), sigs, release.Unsigned},
	} {
		if _, _, err := f.client.LogRelease(ctx, tt.data, tt.sigs); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	if got := events(f.entries(t)); got != "trust, release" {
		t.Errorf("the ledger has %s", got)
	}
	early, earlySigs := f.release(t, 10, func(s *release.Statement) { s.NotBefore = time.Now().Add(time.Hour).UTC().Truncate(time.Second) })
	if _, _, err := f.client.LogRelease(ctx, early, earlySigs); err != nil {
		t.Errorf("before its time: %v", err)
	}
	if _, err := f.client.End(ctx, testServer, 3, ledger.Rotated); err != nil {
		t.Error(err)
	}
}

// TestLedgerKey: a signer does not write under a key that nobody believes, and none where nobody asks for it.
func TestLedgerKey(t *testing.T) {
	f := withLedger(t)
	s := offline(t, f)
	other, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.book.close(); err != nil {
		t.Fatal(err)
	}
	s.keys.ledger = other
	if _, err := s.openLedger(f.dir); err == nil || !strings.Contains(err.Error(), "ledger_keys") {
		t.Errorf("another key: got %v", err)
	}
	s.rules.trust = &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true}
	if b, err := s.openLedger(f.dir); b != nil || err != nil {
		t.Errorf("no ledger: got %v, %v", b, err)
	}
	s.book = nil
	if _, err := s.logRelease(releaseRequest{}, time.Now()); reason(err) != join.LedgerMissing {
		t.Errorf("a release without a ledger: got %v", err)
	}
	s.rules.trust = f.trust
	if _, err := s.logRelease(releaseRequest{}, time.Now()); reason(err) != join.LedgerMissing {
		t.Errorf("a ledger that came later: got %v", err)
	}
}

// TestLedgerAltered: what somebody else wrote there stops the signer.
func TestLedgerAltered(t *testing.T) {
	f := withLedger(t)
	s := offline(t, f)
	if err := s.book.log.Append("begin", struct{}{}); err != nil {
		t.Fatal(err)
	}
	if err := s.book.log.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.openLedger(f.dir); err == nil || !strings.Contains(err.Error(), "record 1") {
		t.Errorf("got %v", err)
	}
	s.book = nil
	if err := os.Remove(filepath.Join(LedgerDir(f.dir), "checkpoint")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.openLedger(f.dir); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its checkpoint: got %v", err)
	}
}

// TestLedgerSeen: a signer reads what came since it was open last, and writes nothing behind a ledger that was taken away, put back or begun anew.
func TestLedgerSeen(t *testing.T) {
	f := withLedger(t)
	s := offline(t, f)
	reopen := func() error {
		t.Helper()
		if s.book != nil {
			if err := s.book.close(); err != nil {
				t.Fatal(err)
			}
		}
		b, err := s.openLedger(f.dir)
		s.book = b
		return err
	}
	now := time.Now().UTC()
	data, sigs := f.release(t, 7, nil)
	if _, err := s.logRelease(releaseRequest{data, sigs}, now); err != nil {
		t.Fatal(err)
	}
	older := filepath.Join(t.TempDir(), "older")
	if err := s.book.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(older, os.DirFS(LedgerDir(f.dir))); err != nil {
		t.Fatal(err)
	}
	s.book = nil
	if err := reopen(); err != nil {
		t.Fatal(err)
	}
	signed, err := s.ticket(f.ticketFor(t, 1, 7, data), now)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := s.admit(newMachine(t).request(signed.Data, signed.Signature), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := reopen(); err != nil {
		t.Fatal(err)
	}
	if index, ok := s.book.entry(testServer, 1); !ok || index != certs.Ledger.Index {
		t.Errorf("after a restart life 1 is entry %d, %v", index, ok)
	}
	if _, err := s.book.allows(f.trust, sum(data), now); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	refused := func(what string) {
		t.Helper()
		if err := reopen(); err == nil || !strings.Contains(err.Error(), "taken away, or put back") {
			t.Errorf("%s: got %v", what, err)
		}
		s.book = nil
	}
	replace := func(with string) {
		t.Helper()
		if err := os.RemoveAll(LedgerDir(f.dir)); err != nil {
			t.Fatal(err)
		}
		if with == "" {
			return
		}
		if err := os.Mkdir(LedgerDir(f.dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(LedgerDir(f.dir), os.DirFS(with)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.book.close(); err != nil {
		t.Fatal(err)
	}
	s.book = nil
	replace("")
	refused("taken away")
	replace(older)
	refused("an older copy")
	if err := os.WriteFile(ledgerSeenPath(f.dir), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := reopen(); err == nil || !strings.Contains(err.Error(), "not what the signer wrote") {
		t.Errorf("rubbish: got %v", err)
	}
	s.book = nil
}

// BenchmarkLedgerLife is what a join waits for more: the entry of a life, with the end of the one before.
func BenchmarkLedgerLife(b *testing.B) {
	dir := b.TempDir()
	if err := os.Mkdir(filepath.Join(dir, keyDir), 0o700); err != nil {
		b.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		b.Fatal(err)
	}
	t := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1}
	book, err := openBook(dir, t, &keys{ledger: signer})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	hash := strings.Repeat("ab", 32)
	book.know(hash, logged{0, &release.Statement{Version: 7, Least: 1, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), MaxAge: 86400}, "{}"})
	v := life{Ends: now.Add(time.Hour), TLSKey: hash, HostKey: trust.FormatKey(signer.PublicKey())}
	for epoch := uint64(1); b.Loop(); epoch++ {
		tk := &ticket.Ticket{Server: testServer, Epoch: epoch, Release: hash, MaxAge: 3600, Deadline: now.Add(time.Hour)}
		if _, err := book.begin(t, tk, v, ledger.Claimed, now); err != nil {
			b.Fatal(err)
		}
	}
	if err := book.log.Close(); err != nil {
		b.Fatal(err)
	}
}
