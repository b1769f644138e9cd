package bastion

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestTuningFollowsDemand: as many processors as busy connections, at once upwards at a login, and downwards only after a lull of
// more than a tick; and the machine's own number in the end.
func TestTuningFollowsDemand(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	all := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(all)
	runtime.GOMAXPROCS(4)
	synctest.Test(t, func(t *testing.T) {
		tune := newTuning()
		var busy atomic.Int32
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { tune.run(ctx, func(time.Time) int { return int(busy.Load()) }) })
		want := func(when string, n int) {
			t.Helper()
			synctest.Wait()
			if got := runtime.GOMAXPROCS(0); got != n {
				t.Errorf("%s: %d processors, want %d", when, got, n)
			}
		}
		want("idle", 1)
		one, two := tune.login(), tune.login()
		want("two logins", 2)
		one()
		two()
		busy.Store(9)
		time.Sleep(tuneEvery + 1)
		want("more than there are", 4)
		busy.Store(1)
		time.Sleep(tuneEvery)
		want("a lull of one tick", 4)
		time.Sleep(tuneEvery)
		want("a longer lull", 1)
		stop()
		group.Wait()
		want("ended", 4)
	})
}

func TestTuningLeavesTheEnvironmentsChoice(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	t.Setenv("GOGC", "50")
	before := runtime.GOMAXPROCS(0)
	tune := newTuning()
	tune.login()()
	if tune.ballast != nil || runtime.GOMAXPROCS(0) != before {
		t.Errorf("%d bytes of slack and %d processors, want none and %d", len(tune.ballast), runtime.GOMAXPROCS(0), before)
	}
	(*tuning)(nil).login()() // as in a server without
}
