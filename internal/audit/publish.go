package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// publishEvery is the shortest time between two checkpoints.
const publishEvery = time.Second

// maxTogether bounds the files that are open at once.
const maxTogether = 64

// publisher turns records into tiles and signs checkpoints over them. It is owned by publish; mu is for last.
type publisher struct {
	tree     *tree
	writes   map[string]tile  // not on disk yet, by stem
	partials map[string][]int // widths of the partial tiles on disk, by stem
	wake     chan struct{}
	stop     chan struct{}
	shared   bool // others read it

	mu     sync.Mutex
	last   Checkpoint
	signed []byte // last, with its signatures
}

func (p *publisher) fileMode() fs.FileMode {
	if p.shared {
		return 0o644
	}
	return 0o600
}

func (p *publisher) dirMode() fs.FileMode {
	if p.shared {
		return 0o755
	}
	return 0o700
}

// begin reads the right edge of the log, or signs an empty one.
func (p *publisher) begin(l *Log, known bool) error {
	p.shared = l.shared
	p.writes, p.partials = map[string]tile{}, map[string][]int{}
	p.wake, p.stop = make(chan struct{}, 1), make(chan struct{})
	if !known {
		p.tree = &tree{}
		return l.sign(Checkpoint{Origin: l.verifier.Name(), Root: p.tree.root()})
	}
	data, err := durable.ReadRegular(filepath.Join(l.dir, checkpointFile), MaxCheckpoint)
	if err != nil {
		return err
	}
	c, _, err := OpenCheckpoint(data, l.verifier)
	if err != nil {
		return hint.New(fmt.Errorf("its checkpoint: %w: the log was changed, or the key is another's", err), evidenceHint)
	}
	if p.tree, err = loadTree(l.dir, c.Size); err != nil {
		return hint.New(fmt.Errorf("its last tiles: %w: the log was changed", err), evidenceHint)
	}
	if err := p.check(c); err != nil {
		return hint.New(err, evidenceHint)
	}
	p.last, p.signed = c, data
	return p.findPartials(l.dir)
}

// check compares the right edge with the checkpoint, and the last entries with their hashes.
func (p *publisher) check(c Checkpoint) error {
	if p.tree.root() != c.Root {
		return fmt.Errorf("its %d records do not have the root hash that was signed: the log was changed", c.Size)
	}
	if p.tree.bundle == nil {
		return nil
	}
	hashes := p.tree.levels[0].hashes
	entries, err := parseBundle(p.tree.bundle, len(hashes))
	if err != nil {
		return err
	}
	for i, entry := range entries {
		if tlog.RecordHash(entry) != hashes[i] {
			return fmt.Errorf("record %d does not have its hash: the log was changed", c.Size-uint64(len(entries)-i))
		}
	}
	return nil
}

// findPartials lists the partial tiles along the right edge, so that they are removed as wider ones replace them.
func (p *publisher) findPartials(dir string) error {
	for l, at := range p.tree.levels {
		for _, entries := range []bool{false, true} {
			if entries && l > 0 {
				continue
			}
			stem := tile{entries: entries, level: l, index: at.tile}.stem()
			files, err := os.ReadDir(filepath.Join(dir, stem+".p"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			for _, f := range files {
				if width, err := strconv.Atoi(f.Name()); err == nil {
					p.partials[stem] = append(p.partials[stem], width)
				}
			}
			slices.Sort(p.partials[stem])
		}
	}
	return nil
}

// poke makes the publisher look.
func (p *publisher) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// publishLoop signs a checkpoint whenever there is something new, and at most every publishEvery.
func (l *Log) publishLoop() {
	for {
		select {
		case <-l.pub.stop:
			return
		case <-l.pub.wake:
		}
		if err := l.publish(); err != nil {
			l.pub.poke() // try again
		}
		pause := time.NewTimer(publishEvery)
		select {
		case <-l.pub.stop:
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// publish writes the tiles of all that is in the journal, signs a checkpoint, and removes what they replace.
func (l *Log) publish() (err error) {
	p := &l.pub
	l.mu.Lock()
	staged, bytes := l.staged, l.unpublished
	l.staged = nil
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.unsigned = err
		if err == nil {
			l.unpublished -= bytes
		}
	}()
	keep := func(t tile) { p.writes[t.stem()] = t }
	for _, entry := range staged {
		p.tree.add(entry, keep)
	}
	for _, t := range p.tree.edge() {
		keep(t)
	}
	if p.tree.size == p.last.Size {
		return nil
	}
	if err := p.writeTiles(l.dir); err != nil {
		return fmt.Errorf("writing tiles: %w", err)
	}
	if err := l.sign(Checkpoint{Origin: l.verifier.Name(), Size: p.tree.size, Root: p.tree.root()}); err != nil {
		return err
	}
	if l.witness != nil {
		l.witness.poke()
	}
	return l.tidy()
}

// writeTiles makes the tiles durable that are not on disk yet.
func (p *publisher) writeTiles(dir string) error {
	dirs := map[string]bool{}
	var written []*os.File
	for _, t := range p.writes {
		if len(written) == maxTogether {
			if err := syncFiles(written); err != nil {
				return err
			}
			written = written[:0]
		}
		err := makeDirs(dir, t.path(), p.dirMode(), dirs)
		var f *os.File
		if err == nil {
			f, err = replaceFile(filepath.Join(dir, t.path()), t.data, p.fileMode())
		}
		if err != nil {
			return errors.Join(err, syncFiles(written))
		}
		written = append(written, f)
	}
	if err := syncFiles(written); err != nil {
		return err
	}
	return syncDirs(dirs)
}

// replaceFile writes a file and leaves it open. Nobody reads it before a checkpoint says that it is there, so it need not be whole before.
func replaceFile(path string, data []byte, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncFiles makes files durable and closes them. The first takes much of what the others need, which lie beside it, to the disk as well.
func syncFiles(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Sync(), f.Close())
	}
	return errors.Join(errs...)
}

func (l *Log) sign(c Checkpoint) error {
	signed, err := signCheckpoint(c, l.signer)
	if err != nil {
		return fmt.Errorf("signing a checkpoint: %w", err)
	}
	p := &l.pub
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := durable.WriteFile(filepath.Join(l.dir, checkpointFile), signed, l.pub.fileMode()); err != nil {
		return err
	}
	p.last, p.signed = c, signed
	l.ship.newCheckpoint(signed)
	return nil
}

// tidy removes segments of the journal that a checkpoint covers, and partial tiles that wider ones have replaced. The partial
// tiles of the checkpoint before stay for those who are reading by it.
func (l *Log) tidy() error {
	p := &l.pub
	l.commitMu.Lock()
	var covered []uint64
	for len(l.older) > 1 && l.older[1] <= p.last.Size {
		covered, l.older = append(covered, l.older[0]), l.older[1:]
	}
	l.commitMu.Unlock()
	var errs []error
	for _, first := range covered {
		errs = append(errs, os.Remove(segmentPath(l.dir, first)))
	}
	for stem, t := range p.writes {
		keep := 2
		if t.width < tileWidth {
			p.partials[stem] = append(p.partials[stem], t.width)
		} else {
			keep = 0
		}
		for n := len(p.partials[stem]); n > keep; n-- {
			errs = append(errs, os.Remove(filepath.Join(l.dir, stem+".p", strconv.Itoa(p.partials[stem][0]))))
			p.partials[stem] = p.partials[stem][1:]
		}
		if keep == 0 {
			delete(p.partials, stem)
			if err := os.Remove(filepath.Join(l.dir, stem+".p")); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	clear(p.writes)
	return errors.Join(errs...)
}
