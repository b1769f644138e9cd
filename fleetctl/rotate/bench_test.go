package rotate

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/policies"
)

// BenchmarkThousand carries 1,000 simulated rotations at once in this process, and says how many cores it took while they went on. Their machines
// need a minute each and more; the world that plays them is in the same process, and in the figure.
func BenchmarkThousand(b *testing.B) {
	for b.Loop() {
		v := newVirtual(b, b.TempDir(), 1, 500)
		for i := range v.b.Inventory.Regions {
			v.b.Inventory.Regions[i].Floor.Mbps = 0
		}
		v.b.Policy.Rotation.MaxParallel = 1000
		v.b.Policy.Rotation.Bake = policies.Duration(10 * time.Second)
		v.b.Policy.Rotation.BootLimit = policies.Duration(10 * time.Minute)
		ctx, stop := context.WithCancel(b.Context())
		var world sync.WaitGroup
		world.Go(func() { v.serve(ctx, b, 2*time.Second) })
		before, began := cpu(b), time.Now()
		r := v.runner("bench", &process{})
		r.Poll = 0
		result, err := r.Run(ctx, v.repave())
		if err != nil || len(result.Servers) != 1000 {
			b.Errorf("got %d servers, %s, %v", len(result.Servers), result.Result, err)
		}
		wall := time.Since(began)
		b.ReportMetric((cpu(b)-before).Seconds()/wall.Seconds(), "cores")
		b.ReportMetric(wall.Seconds(), "wall-s")
		stop()
		world.Wait()
		if err := v.store.Close(); err != nil {
			b.Error(err)
		}
	}
}

// cpu is the time that this process has computed.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
