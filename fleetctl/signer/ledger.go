package signer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/hint"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
)

// LedgerDir is where the fleet's public ledger lies, below DIR. This process is its only writer.
func LedgerDir(dir string) string { return filepath.Join(dir, "public", "ledger") }

// book is the fleet's public ledger as this process writes it, and what is in it so far. A record is on disk before the method returns that
// wrote it.
type book struct {
	log  *audit.Log
	dir  string
	seen string // file

	// releases is held for reading while a life begins: no release is logged meanwhile that would not let it.
	releases sync.RWMutex
	byHash   map[string]logged
	versions map[uint64]string
	least    uint64 // the highest that a logged release asks for
	trust    uint64

	mu    sync.Mutex // guards lives, not what is in them
	lives map[string]*entered
}

// logged is a release that is in the ledger.
type logged struct {
	index     uint64
	statement *release.Statement
	text      string // the exact bytes of the statement
}

// entered is the latest life of a server in the ledger.
type entered struct {
	mu       sync.Mutex // held over reading, deciding and writing; guards the rest
	epoch    uint64
	index    uint64
	deadline time.Time
	ended    bool
}

// openBook opens the ledger and reads what is in it.
func openBook(dir string, t *trust.Trust, k *keys) (*book, error) {
	if err := os.MkdirAll(filepath.Join(dir, "public"), 0o755); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	signer, err := ledger.NewSigner(t.Fleet, k.ledger)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	verifier, err := ledger.Verifier(t.Fleet, trust.FormatKey(k.ledger.PublicKey()))
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	b := &book{dir: LedgerDir(dir), seen: ledgerSeenPath(dir), byHash: map[string]logged{}, versions: map[uint64]string{}, lives: map[string]*entered{}}
	if b.log, err = audit.Open(audit.Options{Dir: b.dir, Shared: true, Own: &audit.Own{Signer: signer, Verifier: verifier}}); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	from, err := b.load()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the ledger: %w", err), b.log.Close())
	}
	if _, err := audit.Read(b.dir, from, b.recall); err != nil {
		return nil, errors.Join(hint.New(fmt.Errorf("reading the ledger: %w", err), "keep %s as evidence; a ledger is begun anew under a new key alone", b.dir), b.log.Close())
	}
	if err := b.save(); err != nil {
		return nil, errors.Join(err, b.log.Close())
	}
	return b, nil
}

// recall takes in a record that was written before.
func (b *book) recall(index uint64, text []byte) error {
	e, err := ledger.Parse(text)
	if err != nil {
		return fmt.Errorf("record %d: %w", index, err)
	}
	switch {
	case e.Release != nil:
		s, err := release.Parse([]byte(e.Release.Statement))
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		b.know(sum([]byte(e.Release.Statement)), logged{index, s, e.Release.Statement})
	case e.Trust != nil:
		b.trust = max(b.trust, e.Trust.Version)
	case e.Begin != nil:
		b.lives[e.Begin.Server] = &entered{epoch: e.Begin.Epoch, index: index, deadline: e.Begin.Deadline}
	case e.Extend != nil:
		if v := b.lives[e.Extend.Server]; v != nil && v.epoch == e.Extend.Epoch {
			v.deadline = e.Extend.Deadline
		}
	case e.End != nil:
		if v := b.lives[e.End.Server]; v != nil && v.epoch == e.End.Epoch {
			v.ended = true
		}
	}
	return nil
}

// know takes in a release. The caller holds releases, or is alone.
func (b *book) know(hash string, l logged) {
	b.byHash[hash], b.versions[l.statement.Version] = l, hash
	b.least = max(b.least, l.statement.Least)
}

// follow logs the trust policy in force, if a newer one is than the last that was logged.
func (b *book) follow(t *trust.Trust) error {
	b.releases.Lock()
	defer b.releases.Unlock()
	return b.followed(t)
}

// followed is follow for who holds releases.
func (b *book) followed(t *trust.Trust) error {
	if t.Version <= b.trust {
		return nil
	}
	err := b.log.Append(ledger.EventTrust, ledger.Trust{Kind: ledger.Kind, Version: t.Version, SHA256: t.Sum()})
	if err != nil {
		return fmt.Errorf("logging the trust policy: %w", err)
	}
	b.trust = t.Version
	return nil
}

// enter logs a release that people and builders signed, once, and returns its record's number.
func (b *book) enter(t *trust.Trust, data, sigs []byte, now time.Time) (uint64, error) {
	s, err := release.Open(t, data, sigs)
	if err == nil && !now.Before(s.NotAfter) {
		err = s.At(now) // one whose time has not come may be logged: witnesses know it by then
	}
	if r, ok := errors.AsType[*release.Refusal](err); ok {
		return 0, join.Refuse(r.Reason, "%v", r.Err)
	}
	if err != nil {
		return 0, err
	}
	hash := sum(data)
	b.releases.Lock()
	defer b.releases.Unlock()
	if l, ok := b.byHash[hash]; ok {
		return l.index, nil
	}
	if other, ok := b.versions[s.Version]; ok {
		return 0, join.Refuse(join.ReleaseForked, "release %d with SHA-256 %s is in the ledger, and here is another, %s: two were signed", s.Version, other, hash)
	}
	if err := b.followed(t); err != nil {
		return 0, err
	}
	counted := counting(t, data, sigs)
	if len(counted) > ledger.MaxSignatures || len(data) > ledger.MaxStatement {
		return 0, join.Refuse(join.RequestInvalid, "the signatures that count have %d bytes, at most %d", len(counted), ledger.MaxSignatures)
	}
	index, err := b.log.AppendIndexed(ledger.EventRelease, ledger.Release{Kind: ledger.Kind, Statement: string(data), Signatures: string(counted)})
	if err != nil {
		return 0, fmt.Errorf("logging release %d: %w", s.Version, err)
	}
	b.know(hash, logged{index, s, string(data)})
	return index, nil
}

// may reports whether a life may begin under a release, by its hash. The caller holds releases for reading.
func (b *book) may(t *trust.Trust, hash string, now time.Time) (*release.Statement, error) {
	l, ok := b.byHash[hash]
	if !ok {
		return nil, join.Refuse(join.ReleaseUnlogged, "no release with SHA-256 %s is in the ledger", hash)
	}
	switch s := l.statement; {
	case s.Version < b.least:
		return nil, join.Refuse(join.ReleaseFrozen, "release %d is older than %d, the oldest that may still boot", s.Version, b.least)
	case s.Version < t.MinRelease:
		return nil, join.Refuse(release.Older, "release %d is older than %d, by the trust policy", s.Version, t.MinRelease)
	}
	if err := l.statement.At(now); err != nil {
		if r, ok := errors.AsType[*release.Refusal](err); ok {
			return nil, join.Refuse(r.Reason, "%v", r.Err)
		}
		return nil, err
	}
	return l.statement, nil
}

// allows is may, for a ticket.
func (b *book) allows(t *trust.Trust, hash string, now time.Time) (*release.Statement, error) {
	b.releases.RLock()
	defer b.releases.RUnlock()
	return b.may(t, hash, now)
}

// close ends the ledger: what is written is signed.
func (b *book) close() error {
	if b == nil {
		return nil
	}
	if err := b.log.Close(); err != nil {
		return err
	}
	return b.save()
}
