package boot

import (
	"path/filepath"
	"syscall"
	"testing"

	"mayfly/internal/audit"
	"mayfly/rebuild/join"
)

// Who can write in public/ only does not stop the loop that brings drains, revocations and policies to servers: neither a checkpoint nor a tile
// that is a pipe keeps it waiting.
func TestLedgerPipes(t *testing.T) {
	p := &lifeProofs{dir: t.TempDir(), index: map[string]record{}}
	for _, name := range []string{audit.WitnessedFile, audit.CheckpointFile} {
		if err := syscall.Mkfifo(filepath.Join(p.dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.look()
	if p.size != 0 {
		t.Errorf("a checkpoint over %d entries came out of a pipe", p.size)
	}
	p.size = 1
	p.note(life{"a", 1}, &join.Ledger{Index: 0})
	if got := p.of(life{"a", 1}); got != nil {
		t.Errorf("a proof came out of a pipe: %+v", got)
	}
}
