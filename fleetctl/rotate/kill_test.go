package rotate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mayfly/inventory"
)

// Environment of a child: where its fleet is, and at which point it kills itself.
const (
	childDir  = "MAYFLY_ROTATE_DIR"
	childKill = "MAYFLY_ROTATE_KILL_AT"
	childTTL  = "MAYFLY_ROTATE_TTL" // of its claims; so short when empty that the next one need not wait
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
		n = -1 // the name of a point
	}
	b := testBundle("se-1", "se-2")
	r := testRunner(childFatal{}, dir, b)
	if killAt != "0" {
		r.TTL = 300 * time.Millisecond
	}
	if ttl, err := time.ParseDuration(os.Getenv(childTTL)); err == nil {
		r.TTL = ttl
	}
	var count atomic.Int64
	r.point = func(name string) {
		if count.Add(1) == n || name == killAt {
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

// TestMachineEndsMeanwhile: the controller dies right after a boot, and the machine too. Whether the journal knows that it ran or
// not, its epoch is not booted again.
func TestMachineEndsMeanwhile(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"boot effect over", "recorded boot done"} {
		t.Run(at, func(t *testing.T) {
			b := testBundle("se-1", "se-2")
			dir, w := serving(t, b)
			w.mu.Lock()
			w.dead["se-1"] = true // it does not join before it ends
			w.mu.Unlock()
			r := testRunner(t, dir, b)
			defer r.Store.Close()
			start := func(kill string) ([]byte, error) {
				cmd := exec.CommandContext(t.Context(), exe)
				cmd.Env = append(os.Environ(), childDir+"="+dir, childKill+"="+kill)
				return cmd.CombinedOutput()
			}
			if out, err := start(at); err == nil {
				t.Fatalf("was not killed: %s", out)
			}
			s, err := r.Store.Server(t.Context(), "se-1")
			if err != nil || s.State != inventory.Booting {
				t.Fatalf("got %s, %v, want booting", s.State, err)
			}
			if err := (fakeMachine{filepath.Join(dir, "se-1.machine")}).Off(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			clear(w.dead)
			w.mu.Unlock()
			if out, err := start("0"); err != nil {
				t.Fatalf("the second rotate: %v: %s", err, out)
			}
			again, err := r.Store.Server(t.Context(), "se-1")
			if err != nil || again.State != inventory.Serving || again.Epoch != s.Epoch+1 {
				t.Errorf("got %s in life %d, %v, want serving in life %d", again.State, again.Epoch, err, s.Epoch+1)
			}
			if n := w.boots(t, "se-1"); n != 3 {
				t.Errorf("got %d boots, want 3", n)
			}
		})
	}
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
	var table matrix
	for n := 1; n <= most && !over; n += killStride {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			b := testBundle("se-1", "se-2")
			dir, w := serving(t, b)
			start := func(n int) ([]byte, error) {
				cmd := exec.CommandContext(t.Context(), exe)
				cmd.Env = append(os.Environ(), childDir+"="+dir, childKill+"="+strconv.Itoa(n))
				if n == 0 {
					cmd.Env = append(cmd.Env, "MAYFLY_TALK=1")
				}
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
			found := left(t.Context(), t, w.store)
			again, err := start(0)
			if err != nil {
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
			outcomes, err := w.store.Outcomes(t.Context(), "", time.Time{})
			if err != nil {
				t.Error(err)
			}
			ends := map[oneLife]int{}
			for _, o := range outcomes {
				ends[oneLife{o.Server, o.Epoch}]++
			}
			for _, s := range servers {
				if n := ends[oneLife{s.Name, s.Epoch}]; n != 1 {
					t.Errorf("killed at %q: the rotation to life %d of %s ended %d times", out, s.Epoch, s.Name, n)
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
			result := "all serve, each booted once and ended once in the run, the floor held, no run open"
			if t.Failed() {
				result = "FAILED"
			}
			table.add(strings.TrimSpace(string(out)), found, did(string(again)), result)
		})
	}
	if !over || points < 50/killStride {
		t.Errorf("got %d points, the last reached: %v", points, over)
	}
	table.log(t, fmt.Sprintf("killed at %d points, every %d:", points, killStride))
}
