package rotate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/inventory/store"
)

// bubble runs a test on a virtual fleet that serves already.
func bubble(t *testing.T, seed uint64, each int, f func(ctx context.Context, v *virtual)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, dir, seed, each)
		ctx, stop := context.WithCancel(context.Background())
		var world sync.WaitGroup
		world.Go(func() { v.serve(ctx, t, 2*time.Second) })
		if result, err := v.runner("first", &process{}).Run(ctx, v.repave()); err != nil || result.Result != "done" {
			t.Errorf("bringing the fleet up: %+v, %v", result, err)
		} else {
			f(ctx, v)
		}
		stop()
		world.Wait()
		if err := v.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestAnotherHolder: at every point of a run its process dies, or stops and comes back much later. Another one takes over when the claims have ended,
// by the clock and by nothing else, and what comes back does nothing any more.
func TestAnotherHolder(t *testing.T) {
	for _, how := range []string{"killed", "stopped"} {
		t.Run(how, func(t *testing.T) {
			points := 0
			var table matrix
			for n := 1; n < 1000; n += takeoverStride {
				reached := false
				bubble(t, 1, 1, func(ctx context.Context, v *virtual) {
					for i := range v.b.Inventory.Regions {
						v.b.Inventory.Regions[i].Floor.Mbps = 0
					}
					reached = takeover(ctx, t, v, n, how, &table)
				})
				if !reached || t.Failed() {
					break
				}
				points++
			}
			if points < 60/takeoverStride {
				t.Errorf("got %d points", points)
			}
			table.log(t, fmt.Sprintf("%s at %d points, every %d:", how, points, takeoverStride))
		})
	}
}

// takeover has the first process end or stop at its n-th point, if it gets that far.
func takeover(ctx context.Context, t *testing.T, v *virtual, n int, how string, table *matrix) bool {
	first, second := &process{}, &process{}
	a, b := v.runner("a", first), v.runner("b", second)
	var mu sync.Mutex
	count, at := 0, ""
	reached := make(chan struct{})
	var resume func()
	a.point = func(name string) {
		mu.Lock()
		if count++; count == n || n == 0 && at == "" && name == "off effect" {
			at = name
			if how == "killed" {
				first.kill()
			} else {
				resume = first.stop()
			}
			close(reached)
		}
		mu.Unlock()
		_ = first.enter() // stops here while the process is stopped
	}
	rules := v.repave()
	dying, die := context.WithCancel(ctx)
	defer die()
	var wait sync.WaitGroup
	over := make(chan struct{})
	wait.Go(func() { defer close(over); _, _ = a.Run(dying, rules) })
	select {
	case <-reached:
	case <-over:
		return false
	}
	if how == "killed" {
		die()
	}
	began := time.Now()
	claims, err := v.store.Claims(ctx, time.Now())
	if err != nil {
		t.Error(err)
	}
	found, took := left(ctx, t, v.store), "nothing: all was done, or nothing begun"
	b.point = func(name string) {
		for _, c := range claims {
			if name == "claimed" && len(claims) == len(v.b.Inventory.Servers) && time.Since(began) < ClaimTTL/2 {
				t.Errorf("%s at %q: %s was taken over after %s, and its claim lasted", how, at, c.Server, time.Since(began))
			}
		}
	}
	if _, open, err := v.store.OpenRun(ctx); err != nil {
		t.Error(err)
	} else if open { // or it has not begun, or is over
		if result, err := b.Run(ctx, rules); err != nil || result.Result != "done" {
			t.Errorf("%s at %q: the second: %+v, %v", how, at, result, err)
		}
		took = fmt.Sprintf("waited for %d claims, ended the run after %.0f s", len(claims), time.Since(began).Seconds())
	}
	if how == "stopped" {
		<-time.After(10 * ClaimTTL)
		resume()
	}
	<-over
	wait.Wait()
	if how == "killed" {
		<-time.After(2 * ClaimTTL) // claims of servers that it had not taken away yet
		if result, err := v.runner("c", &process{}).Run(ctx, Rules(v.b.Inventory, v.b.Policy.Rotation, nil)); err != nil {
			t.Errorf("%s at %q: the third: %+v, %v", how, at, result, err)
		}
	}
	v.judge(ctx, t)
	for _, s := range v.b.Inventory.Servers {
		entries, err := v.store.Journal(ctx, s.Name)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if e.Step == "attempt" {
				t.Errorf("%s at %q: %s failed: %s", how, at, s.Name, e.Detail)
			}
		}
	}
	result := "every life booted once, every rotation ended once, floors held, no attempt failed"
	if t.Failed() {
		result = "FAILED"
	}
	table.add(at, found, took, result)
	return true
}

// TestStoppedBeforeItSwitchesOff: a process stops right before it switches a machine off, and goes on when another one has brought the server back.
func TestStoppedBeforeItSwitchesOff(t *testing.T) {
	bubble(t, 1, 1, func(ctx context.Context, v *virtual) {
		for i := range v.b.Inventory.Regions {
			v.b.Inventory.Regions[i].Floor.Mbps = 0
		}
		if !takeover(ctx, t, v, 0, "stopped", &matrix{}) {
			t.Error("it did not get that far")
		}
	})
}

// TestManyRunners: several processes carry one run together, while they die, stop and are cut off, and machines are slow, fail and lie. No
// planned removal breaks a floor, no epoch is booted twice, every rotation ends once, and nothing is lost.
func TestManyRunners(t *testing.T) {
	for seed := range uint64(manyRunnersSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, seed, 3, func(ctx context.Context, v *virtual) {
				v.mu.Lock()
				v.hurt = 0.25
				v.mu.Unlock()
				chaos(ctx, t, v, rand.New(rand.NewPCG(seed, 2)))
				v.judge(ctx, t)
			})
		})
	}
}

// chaos carries one run to its end with three processes that nothing good happens to.
func chaos(ctx context.Context, t *testing.T, v *virtual, dice *rand.Rand) {
	const processes = 3
	before := lastRun(ctx, t, v.store)
	over := func() bool { // the run has begun and ended
		_, open, err := v.store.OpenRun(ctx)
		if err != nil {
			t.Error(err)
			return true
		}
		return !open && lastRun(ctx, t, v.store) > before
	}
	calm, calmDown := context.WithCancel(ctx)
	var all sync.WaitGroup
	for i := range processes {
		seed := dice.Uint64()
		all.Go(func() {
			dice := rand.New(rand.NewPCG(seed, 3))
			for !over() {
				p := &process{}
				living, die := context.WithCancel(ctx)
				var trouble sync.WaitGroup
				ended := make(chan struct{})
				trouble.Go(func() {
					for {
						select {
						case <-ended:
							return
						case <-calm.Done():
							return
						case <-time.After(time.Duration(dice.Int64N(int64(2 * time.Minute)))):
						}
						span := time.Duration(dice.Int64N(int64(3 * ClaimTTL)))
						switch dice.IntN(3) {
						case 0:
							p.kill()
							die()
							return
						case 1:
							resume := p.stop()
							<-time.After(span)
							resume()
						default:
							p.cutOff(true)
							<-time.After(span)
							p.cutOff(false)
						}
					}
				})
				_, _ = v.runner(fmt.Sprintf("controller-%d", i), p).Run(living, v.repave())
				close(ended)
				trouble.Wait()
				die()
				<-time.After(time.Duration(dice.Int64N(int64(10 * time.Second))))
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(12 * time.Hour):
		calmDown() // what is left ends in peace
		<-finished
	}
	calmDown()
	// The last process may have died with the run's end still to write.
	<-time.After(2 * ClaimTTL)
	if result, err := v.runner("last", &process{}).Run(ctx, Rules(v.b.Inventory, v.b.Policy.Rotation, nil)); err != nil && result.Result != "quarantined" {
		t.Errorf("in the end: %+v, %v", result, err)
	}
}

func lastRun(ctx context.Context, t *testing.T, s store.Store) int64 {
	last, _, err := s.LastRun(ctx)
	if err != nil {
		t.Error(err)
	}
	return last.ID
}
