package bastion

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Implementation constants of how the program uses the machine.
const (
	slack     = 32 << 20 // bytes of garbage that a small heap may gather: each packet of 32 KiB becomes some
	tuneEvery = time.Second
	busyFor   = 2 * time.Second // a connection that moved bytes or logged in this recently counts as busy
	quietFor  = 4 * time.Second // without a login before the heap is put in order
	tidyRuns  = 5               // collections that put it in order: each halves what stacks do not need
)

// tuning fits the Go runtime to what there is to do. A packet passes through four goroutines, and with idle processors at hand the runtime
// wakes one for each of them, at a multiple of the packet's own cost. So there are as many processors as there are busy connections: one that
// works alone is carried by one, as a process of its own would, and many use the whole machine. After logins the heap is put in order
// once, since a handshake needs far more memory than the connection that it leaves.
//
// What the environment sets (GOGC, GOMAXPROCS) stays.
type tuning struct {
	ballast []byte // never touched, and so never resident: the collector waits for as much again
	most    int    // 0: the number of processors is left alone

	logins  atomic.Int64 // begun so far
	working atomic.Int32 // handshakes that run now

	mu    sync.Mutex
	procs int
}

func newTuning() *tuning {
	t := &tuning{}
	if os.Getenv("GOGC") == "" {
		t.ballast = make([]byte, slack)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		t.most = runtime.GOMAXPROCS(0)
		t.procs = t.most
	}
	return t
}

// login notes a handshake from its begin to its end. A nil tuning does nothing.
func (t *tuning) login() (done func()) {
	if t == nil {
		return func() {}
	}
	t.logins.Add(1)
	if n := int(t.working.Add(1)); n <= t.most {
		t.use(n, false)
	}
	return func() { t.working.Add(-1) }
}

// use sets the number of processors; it lowers it only if told so.
func (t *tuning) use(n int, lower bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n = min(max(n, 1), t.most)
	if n > t.procs || lower && n < t.procs {
		runtime.GOMAXPROCS(n)
		t.procs = n
	}
}

// run follows the demand until ctx ends, and leaves the runtime as it was.
func (t *tuning) run(ctx context.Context, busy func(since time.Time) int) {
	tick := time.NewTicker(tuneEvery)
	defer tick.Stop()
	var before int // busy at the tick before: a lull of one tick changes nothing
	var seen int64
	quiet, tidy := time.Now(), 0
	if t.most > 0 {
		t.use(1, true)
	}
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			t.use(t.most, false)
			runtime.KeepAlive(t.ballast)
			return
		case now = <-tick.C:
		}
		if t.most > 0 {
			n := busy(now.Add(-busyFor)) + int(t.working.Load())
			t.use(max(n, before), true)
			before = n
		}
		if n := t.logins.Load(); n != seen {
			seen, quiet, tidy = n, now, tidyRuns
		} else if tidy > 0 && now.Sub(quiet) >= quietFor {
			if tidy--; tidy > 0 {
				runtime.GC()
			} else {
				debug.FreeOSMemory()
			}
		}
	}
}
