package rotate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"mayfly/inventory"
)

// Environment of a child: where its fleet is, and at which point it kills itself.
const (
	childDir  = "MAYFLY_ROTATE_DIR"
	childKill = "MAYFLY_ROTATE_KILL_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir, os.Getenv(childKill)))
	}
	os.Exit(m.Run())
}

type childFatal struct{}

func (childFatal) Fatal(args ...any) { fmt.Fprintln(os.Stderr, args...); os.Exit(2) }

// child is a rotate that kills itself with SIGKILL at the n-th point: before or after a write, an effect, or between them.
func child(dir, killAt string) int {
	n, err := strconv.ParseInt(killAt, 10, 64)
	if err != nil {
		childFatal{}.Fatal(err)
	}
	b := testBundle("se-1", "se-2")
	r := testRunner(childFatal{}, dir, b)
	var count atomic.Int64
	r.point = func(name string) {
		if count.Add(1) == n {
			fmt.Fprintln(os.Stdout, name)
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				childFatal{}.Fatal(err)
			}
			select {} // never returns to what comes next
		}
	}
	result, err := r.Run(context.Background(), all(b))
	if err = errors.Join(err, r.Store.Close()); err != nil {
		childFatal{}.Fatal(err)
	}
	fmt.Println(result.Result)
	return 0
}

// TestKilledAnywhere kills a rotate at every point of its journal, starts another, and looks: everything serves, and each
// server was booted once.
func TestKilledAnywhere(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const most = 1000 // points; a run has about 70
	over, points := false, 0
	for n := 1; n <= most && !over; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			b := testBundle("se-1", "se-2")
			dir, w := serving(t, b)
			start := func(n int) ([]byte, error) {
				cmd := exec.CommandContext(t.Context(), exe)
				cmd.Env = append(os.Environ(), childDir+"="+dir, childKill+"="+strconv.Itoa(n))
				return cmd.CombinedOutput()
			}
			out, err := start(n)
			if err == nil {
				over = true // n is beyond the last point
				return
			}
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the first rotate: %v: %s", err, out)
			}
			points++
			if again, err := start(0); err != nil {
				t.Fatalf("killed at %q, the second rotate: %v: %s", out, err, again)
			}
			servers, err := w.store.Servers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range servers {
				if s.State != inventory.Serving {
					t.Errorf("killed at %q: %s is %s", out, s.Name, s.State)
				}
				if n := w.boots(t, s.Name); n != 2 {
					t.Errorf("killed at %q: %s was booted %d times, want 2: to come up, and once in the run", out, s.Name, n)
				}
			}
			if _, open, err := w.store.OpenRun(t.Context()); open || err != nil {
				t.Errorf("killed at %q: the run is open (%v), %v", out, open, err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if low := w.lowest["se"]; low < 1000 {
				t.Errorf("killed at %q: the region fell to %d", out, low)
			}
		})
	}
	if !over || points < 50 {
		t.Errorf("got %d points, the last reached: %v", points, over)
	}
	t.Logf("killed at %d points", points)
}
