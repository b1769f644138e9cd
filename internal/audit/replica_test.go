package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// controller is the other end of a replica, which can be away, and can lose its answers.
type controller struct {
	t    *testing.T
	dir  string
	name string

	mu    sync.Mutex
	copy  *Copy
	away  bool
	deaf  bool // it takes, and its answer is lost
	asked int
}

var errAway = errors.New("nobody answers")

func newController(t *testing.T) *controller {
	c := &controller{t: t, dir: filepath.Join(t.TempDir(), "copy"), name: "lab/test"}
	t.Cleanup(func() {
		if c.copy != nil {
			closeCopy(t, c.copy)
		}
	})
	return c
}

func closeCopy(t *testing.T, c *Copy) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func (c *controller) take(b Batch) (Kept, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.away {
		return Kept{}, errAway
	}
	if c.copy == nil {
		copy, err := OpenCopy(c.dir, b.Log, c.name)
		if err != nil {
			return Kept{}, err
		}
		c.copy = copy
	}
	kept, err := c.copy.Take(b)
	if c.deaf {
		return Kept{}, errAway
	}
	return kept, err
}

// questions is how often it was asked.
func (c *controller) questions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// set changes the controller; restart opens its copy anew from disk.
func (c *controller) set(away, deaf, restart bool) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away, c.deaf = away, deaf
	if restart && c.copy != nil {
		closeCopy(c.t, c.copy)
		c.copy = nil
	}
}

func openReplicated(t *testing.T, dir string, c *controller) *Log {
	t.Helper()
	l, err := Open(Options{Dir: dir, Name: "lab/test", Reserve: 1, Replica: c.take})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// caughtUp waits until nothing is behind.
func caughtUp(t *testing.T, l *Log) {
	t.Helper()
	eventually(t, "the replica has caught up", func() bool { return l.Healthy() == nil })
}

// same wants the copy to hold just what the log holds, verified by the log's own key.
func (c *controller) same(dir string, want int) {
	c.t.Helper()
	log, copied := texts(c.t, dir), texts(c.t, c.dir)
	if len(log) != want || !reflect.DeepEqual(log, copied) {
		c.t.Fatalf("the log has %d records, its copy %d, want %d and the same", len(log), len(copied), want)
	}
	verify(c.t, c.dir, uint64(want))
}

// TestReplica has every record at the replica when Append returns.
func TestReplica(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "log"), newController(t)
	l := openReplicated(t, dir, c)
	caughtUp(t, l)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 150 {
				if err := l.AppendOpening("login", fmt.Sprintf("%d %d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if got := len(texts(t, c.dir)); got != 600 {
		t.Fatalf("the copy has %d records when Append has returned, want 600", got)
	}
	closeLog(t, l)
	c.same(dir, 600)
	if r, err := Verify(c.dir, Trusted{Log: verifier(t, dir)}); err != nil || r.Size != 600 || r.Unsigned != 0 {
		t.Errorf("the copy of a closed log: got %+v, %v, want all of it signed", r, err)
	}
	// Opened anew, both go on where they were.
	c.set(false, false, true)
	l = openReplicated(t, dir, c)
	caughtUp(t, l)
	if err := l.AppendOpening("login", "again"); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	c.same(dir, 601)
}

// TestReplicaAway lets nothing begin while the replica is away; what is under way is kept, and comes there once.
func TestReplicaAway(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "log"), newController(t)
	l := openReplicated(t, dir, c)
	caughtUp(t, l)
	if err := l.AppendOpening("login", 1); err != nil {
		t.Fatal(err)
	}
	c.set(true, false, false)
	if err := l.AppendOpening("login", 2); !errors.Is(err, ErrBehind) || !errors.Is(err, errAway) {
		t.Errorf("the login that meets it: got %v, want %v", err, ErrBehind)
	}
	asked := c.questions()
	for i := range 50 {
		if err := l.AppendOpening("login", 3); !errors.Is(err, ErrBehind) {
			t.Errorf("login %d: got %v, want %v", i, err, ErrBehind)
		}
		if err := l.Append("connection", i); err != nil {
			t.Errorf("closing record %d: %v", i, err)
		}
	}
	if more := c.questions() - asked; more > 5 {
		t.Errorf("%d questions for records that had to wait", more)
	}
	if !errors.Is(l.Healthy(), ErrBehind) {
		t.Errorf("health: got %v, want %v", l.Healthy(), ErrBehind)
	}
	c.set(false, false, true) // it comes back as another process
	caughtUp(t, l)
	if err := l.AppendOpening("login", 4); err != nil {
		t.Error(err)
	}
	closeLog(t, l)
	c.same(dir, 1+1+50+1)
}

// TestReplicaUnheard sends again what the replica took and did not say so, and it is there once.
func TestReplicaUnheard(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "log"), newController(t)
	l := openReplicated(t, dir, c)
	caughtUp(t, l)
	c.set(false, true, false)
	if err := l.AppendOpening("login", 1); !errors.Is(err, ErrBehind) {
		t.Errorf("got %v, want %v", err, ErrBehind)
	}
	if err := l.Append("connection", 1); err != nil {
		t.Error(err)
	}
	c.set(false, false, false)
	caughtUp(t, l)
	closeLog(t, l)
	c.same(dir, 2)
}

// TestReplicaLate begins while the replica is away: what the log had before comes there as well.
func TestReplicaLate(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "log"), newController(t)
	write(t, dir, 700) // signed, in tiles
	c.set(true, false, false)
	l := openReplicated(t, dir, c)
	if err := l.AppendOpening("login", 1); !errors.Is(err, ErrBehind) {
		t.Errorf("got %v, want %v", err, ErrBehind)
	}
	if err := l.Append("serve", 1); err != nil {
		t.Error(err)
	}
	c.set(false, false, false)
	caughtUp(t, l)
	closeLog(t, l)
	c.same(dir, 701)
}

// TestReplicaCrash ends the writer between journal and replica: the next one brings it there.
func TestReplicaCrash(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "log"), newController(t)
	l := openReplicated(t, dir, c)
	caughtUp(t, l)
	c.set(true, false, false)
	if err := l.Append("connection", 1); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); !errors.Is(err, errAway) {
		t.Errorf("closing while it is away: got %v, want it said", err)
	}
	c.set(false, false, false)
	l = openReplicated(t, dir, c)
	caughtUp(t, l)
	closeLog(t, l)
	c.same(dir, 1)
}

// TestReplicaFull keeps a bounded number of records for a replica that stays away.
func TestReplicaFull(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "log"), newController(t)
	l := openReplicated(t, dir, c)
	caughtUp(t, l)
	c.set(true, false, false)
	written := 0
	var err error
	for long := strings.Repeat("x", 60_000); err == nil && written < 2*maxBehind/len(long); written++ {
		err = l.Append("connection", long)
	}
	if err == nil || !strings.Contains(err.Error(), "no more can") {
		t.Fatalf("after %d records: got %v", written, err)
	}
	c.set(false, false, false)
	caughtUp(t, l)
	closeLog(t, l)
	c.same(dir, written-1)
}

// TestReplicaCutOff is a log that has less than its replica.
func TestReplicaCutOff(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "log"), newController(t)
	l := openReplicated(t, dir, c)
	caughtUp(t, l)
	if err := l.Append("connection", 1); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	key, err := os.ReadFile(filepath.Join(dir, KeyName))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, KeyName), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	l = openReplicated(t, dir, c)
	eventually(t, "it is said", func() bool { return strings.Contains(fmt.Sprint(l.Healthy()), "cut off") })
	if err := l.AppendOpening("login", 1); !errors.Is(err, ErrBehind) {
		t.Errorf("got %v, want %v", err, ErrBehind)
	}
	if err := l.Close(); err == nil {
		t.Error("closing says nothing")
	}
}

// TestCopyRefuses gives a copy what a log does not send.
func TestCopyRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	write(t, dir, 3)
	key, err := readKey(filepath.Join(dir, KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "log")
	write(t, other, 3)
	otherKey, err := readKey(filepath.Join(other, KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(other, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	var frames []byte
	for _, text := range texts(t, dir) {
		frames = appendFrame(frames, []byte(text))
	}
	forged := appendFrame(nil, []byte(strings.Replace(texts(t, dir)[2], `"n":2`, `"n":3`, 1)))
	at := filepath.Join(t.TempDir(), "copy")
	c, err := OpenCopy(at, key, "lab/test")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := c.Take(Batch{Log: key, Frames: frames[:len(frames)-len(forged)]})
	if err != nil || kept != (Kept{Next: 2}) {
		t.Fatalf("got %+v, %v", kept, err)
	}
	for name, b := range map[string]Batch{
		"a gap":                        {First: 3, Frames: forged},
		"half a frame":                 {First: 2, Frames: forged[:len(forged)-1]},
		"no record":                    {First: 2, Frames: appendFrame(nil, []byte("x"))},
		"too much":                     {First: 2, Frames: make([]byte, maxBatch+1)},
		"another's checkpoint":         {First: 2, Checkpoint: foreign},
		"a checkpoint ahead":           {First: 2, Checkpoint: signed},
		"a checkpoint that is too big": {First: 2, Checkpoint: make([]byte, MaxCheckpoint+1)},
	} {
		b.Log = key
		if _, err := c.Take(b); !isRefused(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if kept, err = c.Take(Batch{Log: key}); err != nil || kept.Next != 2 {
		t.Errorf("after all that: got %+v, %v", kept, err)
	}
	if _, err := c.Take(Batch{Log: otherKey}); !isRefused(err) {
		t.Errorf("another log: got %v", err)
	}
	// Other records than those that the log signed close the copy.
	if _, err := c.Take(Batch{Log: key, First: 2, Frames: forged, Checkpoint: signed}); !isRefused(err) || !strings.Contains(err.Error(), "not over those") {
		t.Errorf("a checkpoint over others: got %v", err)
	}
	if _, err := c.Take(Batch{}); err == nil || c.Broken() == nil {
		t.Error("the copy goes on")
	}
	closeCopy(t, c)
	if _, err := OpenCopy(at, otherKey, "lab/test"); !isRefused(err) || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: got %v", err)
	}
	if _, err := OpenCopy(filepath.Join(t.TempDir(), "x"), key, "lab/other"); !isRefused(err) {
		t.Errorf("another name: got %v", err)
	}
	if _, err := OpenCopy(filepath.Join(t.TempDir(), "x"), "key", "lab/other"); !isRefused(err) {
		t.Errorf("no key: got %v", err)
	}
}

func isRefused(err error) bool {
	_, ok := errors.AsType[*Refused](err)
	return ok
}

// FuzzCopy gives a copy any frames and checkpoint.
func FuzzCopy(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "log")
	write(f, dir, 2)
	key, err := readKey(filepath.Join(dir, KeyName+".pub"))
	if err != nil {
		f.Fatal(err)
	}
	signed, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		f.Fatal(err)
	}
	var frames []byte
	for _, text := range texts(f, dir) {
		frames = appendFrame(frames, []byte(text))
	}
	f.Add(uint64(0), frames, signed)
	f.Add(uint64(1), frames, signed)
	f.Add(uint64(0), frames[:20], signed[:20])
	f.Fuzz(func(t *testing.T, first uint64, frames, checkpoint []byte) {
		dir, err := os.MkdirTemp("/dev/shm", "mayfly-copy-") // every write is synced
		if err != nil {
			dir = t.TempDir()
		}
		defer os.RemoveAll(dir)
		at := filepath.Join(dir, "copy")
		c, err := OpenCopy(at, key, "lab/test")
		if err != nil {
			t.Fatal(err)
		}
		defer closeCopy(t, c)
		kept, err := c.Take(Batch{Log: key, First: first, Frames: frames, Checkpoint: checkpoint})
		if err == nil && kept.Size > 0 {
			verify(t, at, kept.Next)
		}
	})
}
