package signer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/canonical"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/rebuild/release"
)

// The signer's own note of what the ledger held when it was opened or closed last: so a start reads what came since, and no more, and a ledger that was
// taken away or put back from an older copy is found before anything is written behind it.
const (
	ledgerSeenFile = "ledger-seen.json"
	ledgerSeenKind = "mayfly-ledger-seen/1"
	maxLedgerSeen  = 64 << 20
)

type ledgerSeen struct {
	Kind     string        `json:"kind"`
	Size     uint64        `json:"size"` // entries
	Root     string        `json:"root"` // the log's root hash then
	Trust    uint64        `json:"trust"`
	Releases []seenRelease `json:"releases"`
	Lives    []seenLife    `json:"lives"`
}

type seenRelease struct {
	Index     uint64 `json:"index"`
	Statement string `json:"statement"`
}

type seenLife struct {
	Server   string    `json:"server"`
	Epoch    uint64    `json:"epoch"`
	Index    uint64    `json:"index"`
	Deadline time.Time `json:"deadline"`
	Ended    bool      `json:"ended"`
}

// load takes in what was seen, and returns how much of the log that is.
func (b *book) load() (uint64, error) {
	data, err := durable.ReadRegular(b.seen, maxLedgerSeen)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var s ledgerSeen
	if err == nil {
		err = canonical.Parse(data, maxLedgerSeen, &s)
	}
	if err != nil || s.Kind != ledgerSeenKind {
		return 0, hint.New(fmt.Errorf("reading %s: %w", b.seen, errors.Join(err, errors.New("not what the signer wrote"))), "take it away, if the ledger is as it was: it is read anew")
	}
	gone := fmt.Errorf("the ledger does not hold the %d entries that it had: it was taken away, or put back from an older copy", s.Size)
	if b.log.Checkpoint().Size < s.Size {
		return 0, hint.New(gone, "put back %s as it was: witnesses cosign nothing else", b.dir)
	}
	if root, err := audit.RootAt(b.dir, s.Size); err != nil || root.String() != s.Root {
		return 0, hint.New(errors.Join(gone, err), "put back %s as it was: witnesses cosign nothing else", b.dir)
	}
	b.trust = s.Trust
	for _, r := range s.Releases {
		statement, err := release.Parse([]byte(r.Statement))
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", b.seen, err)
		}
		b.know(sum([]byte(r.Statement)), logged{r.Index, statement, r.Statement})
	}
	for _, l := range s.Lives {
		b.lives[l.Server] = &entered{epoch: l.Epoch, index: l.Index, deadline: l.Deadline, ended: l.Ended}
	}
	return s.Size, nil
}

// save notes what the log holds. Nobody writes meanwhile.
func (b *book) save() error {
	head := b.log.Checkpoint()
	s := ledgerSeen{Kind: ledgerSeenKind, Size: head.Size, Root: head.Root.String(), Trust: b.trust, Releases: []seenRelease{}, Lives: []seenLife{}}
	for _, l := range b.byHash {
		s.Releases = append(s.Releases, seenRelease{l.index, l.text})
	}
	for name, v := range b.lives {
		if v.epoch > 0 {
			s.Lives = append(s.Lives, seenLife{name, v.epoch, v.index, v.deadline, v.ended})
		}
	}
	slices.SortFunc(s.Releases, func(a, b seenRelease) int { return int(a.Index) - int(b.Index) })
	slices.SortFunc(s.Lives, func(a, b seenLife) int { return strings.Compare(a.Server, b.Server) })
	data, err := canonical.Marshal(s)
	if err != nil {
		return fmt.Errorf("writing %s: %w", b.seen, err)
	}
	return durable.WriteFile(b.seen, data, 0o600)
}

// ledgerSeenPath is where the note lies.
func ledgerSeenPath(dir string) string { return filepath.Join(dir, keyDir, ledgerSeenFile) }
