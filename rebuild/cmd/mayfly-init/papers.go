package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// papers are what mayfly-stub hands over in /run/mayfly, checked again here.
type papers struct {
	trust     *trust.Trust
	ticket    *ticket.Ticket
	statement *release.Statement
	data, sig []byte // the ticket's exact bytes
}

const maxPaper = 1 << 20

// readPapers opens the ticket with the trust policy. The release statement is the one whose hash the ticket names.
func readPapers(dir string, now time.Time) (*papers, error) {
	var p papers
	raw := make(map[string][]byte)
	for _, name := range []string{ticket.TrustFile, ticket.File, ticket.SignatureFile, release.StatementFile} {
		data, err := readPaper(filepath.Join(dir, name))
		if err != nil {
			return nil, refuse(codePapers, "reading what the stub left: %w", err)
		}
		raw[name] = data
	}
	var err error
	if p.trust, err = trust.Parse(raw[ticket.TrustFile]); err != nil {
		return nil, refuse(codePapers, "the trust policy: %w", err)
	}
	p.data, p.sig = raw[ticket.File], raw[ticket.SignatureFile]
	if p.ticket, err = ticket.Open(p.trust, p.data, p.sig, now); err != nil {
		if r, ok := errors.AsType[*ticket.Refusal](err); ok {
			return nil, refuse(r.Reason, "%w", r.Err)
		}
		return nil, refuse(codePapers, "the ticket: %w", err)
	}
	sum := sha256.Sum256(raw[release.StatementFile])
	if hex.EncodeToString(sum[:]) != p.ticket.Release {
		return nil, refuse(codeRelease, "the release statement is not the one that the ticket names")
	}
	if p.statement, err = release.Parse(raw[release.StatementFile]); err != nil {
		return nil, refuse(codeRelease, "the release statement: %w", err)
	}
	return &p, nil
}

func readPaper(path string) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return join.ReadBody(f, maxPaper)
}

// burn removes the ticket's files once it was used: its secret opens nothing more, and nobody needs to find it.
func burn(dir string) error {
	for _, name := range []string{ticket.File, ticket.SignatureFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the used ticket: %w", err)
		}
	}
	return nil
}

// lifetime is how long the machine may run since it booted, whatever the time: the shorter of ticket and release.
func (p *papers) lifetime() time.Duration {
	life := time.Duration(p.ticket.MaxAge) * time.Second
	if r := time.Duration(p.statement.MaxAge) * time.Second; r > 0 {
		life = min(life, r)
	}
	return life
}
