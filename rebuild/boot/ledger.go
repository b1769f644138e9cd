package boot

import (
	"bytes"
	"path/filepath"
	"regexp"
	"sync"

	"mayfly/internal/audit"
	"mayfly/internal/durable"
	"mayfly/policies/ledger"
	"mayfly/rebuild/join"
)

// publicPaths are what the boot port serves of DIR/public beside releases: the ledger's tiles (c2sp.org/tlog-tiles) and the trust policies,
// for whoever checks the one by the other. What else lies in the ledger's directory (its journal, its lock) has no path here.
var publicPaths = []*regexp.Regexp{
	regexp.MustCompile(`^/ledger/checkpoint(\.witnessed)?$`),
	regexp.MustCompile(`^/ledger/tile/(entries|[0-7])/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/[1-9][0-9]{0,2})?$`),
	regexp.MustCompile(`^/trust/[1-9][0-9]{0,9}\.json(\.sig)?$`),
}

// publicFile is the file that a path names, below DIR/public.
func publicFile(path string) (string, bool) {
	if m := releasePath.FindStringSubmatch(path); m != nil && releaseFiles[m[2]] {
		return path[1:], true
	}
	for _, p := range publicPaths {
		if p.MatchString(path) {
			return path[1:], true
		}
	}
	return "", false
}

// lifeProofs brings to each server the proof that the ledger holds its life, once as many witnesses have cosigned a checkpoint over it as the
// trust policy asks.
type lifeProofs struct {
	dir  string
	keys ledger.Keys

	mu    sync.Mutex        // guards the rest
	index map[string]record // of each server's latest life
	head  []byte            // the checkpoint that size was read from
	size  uint64            // what it covers, believed
}

type record struct {
	epoch, index uint64
}

func newLifeProofs(c Config) (*lifeProofs, error) {
	keys, err := ledger.KeysOf(c.Trust)
	if err != nil {
		return nil, err
	}
	return &lifeProofs{dir: filepath.Join(c.Public, "ledger"), keys: keys, index: map[string]record{}}, nil
}

// note remembers where the ledger has a life, and adds the proof if there is one.
func (p *lifeProofs) note(l life, at *join.Ledger) {
	if at == nil {
		return
	}
	p.mu.Lock()
	if old := p.index[l.name]; l.epoch >= old.epoch {
		p.index[l.name] = record{l.epoch, at.Index}
	}
	p.mu.Unlock()
	if p.covers(at.Index) {
		at.Proof = p.prove(at.Index)
	}
}

// look reads the newest checkpoint, if there is a newer one.
func (p *lifeProofs) look() {
	for _, name := range []string{audit.WitnessedFile, audit.CheckpointFile} {
		data, err := durable.ReadRegular(filepath.Join(p.dir, name), audit.MaxCheckpoint)
		if err != nil {
			continue
		}
		p.mu.Lock()
		known := bytes.Equal(data, p.head)
		p.mu.Unlock()
		if known {
			return
		}
		head, err := p.keys.Checkpoint(data)
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.head, p.size = data, max(p.size, head.Size)
		p.mu.Unlock()
		return
	}
}

func (p *lifeProofs) covers(index uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return index < p.size
}

// of is the proof of a life, or nil while there is none.
func (p *lifeProofs) of(l life) *join.Ledger {
	p.mu.Lock()
	at, ok := p.index[l.name]
	p.mu.Unlock()
	if !ok || at.epoch != l.epoch || !p.covers(at.index) {
		return nil
	}
	proof := p.prove(at.index)
	if proof == nil {
		return nil
	}
	return &join.Ledger{Index: at.index, Proof: proof}
}

// prove makes a proof that those who ask for it will believe, or none.
func (p *lifeProofs) prove(index uint64) []byte {
	proof, err := audit.Prove(p.dir, index)
	if err != nil {
		return nil // the log moved on under the reader: the next look finds it
	}
	data := proof.Marshal()
	if _, err := p.keys.Open(data); err != nil || len(data) > join.MaxLedgerProof {
		return nil
	}
	return data
}
