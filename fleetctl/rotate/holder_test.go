package rotate

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"mayfly/inventory/store"
)

// TestDead: a holder is dead only when this very host can see that it is. Everything else waits for the claim's end.
func TestDead(t *testing.T) {
	own := Holder("a/b")
	f := strings.Split(own, "/")
	if len(f) != holderFields || f[0] != "a-b" || f[1] != fmt.Sprint(os.Getpid()) {
		t.Fatalf("got %q", own)
	}
	with := func(i int, text string) string {
		c := append([]string(nil), f...)
		c[i] = text
		return strings.Join(c, "/")
	}
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	gone := fmt.Sprint(cmd.Process.Pid)
	for _, tt := range []struct {
		name, holder string
		want         bool
	}{
		{"this process", own, false},
		{"a parent", strings.Join([]string{f[0], fmt.Sprint(os.Getppid()), f[2], f[3], startOf(os.Getppid())}, "/"), false},
		{"a process that has ended", strings.Join([]string{f[0], gone, f[2], f[3], "1"}, "/"), true},
		{"its number is another's", with(4, "1"), true},
		{"another boot or host", strings.Join([]string{f[0], gone, f[2], "0" + f[3], "1"}, "/"), false},
		{"no word of where", with(3, ""), false},
		{"no word of when", with(4, ""), false},
		{"an older release's name", strings.Join(f[:3], "/"), false},
		{"no number", with(1, "x"), false},
		{"all processes", with(1, "-1"), false},
		{"a group", with(1, "0"), false},
		{"a host's lease", "omaha 2030-01-01T00:00:00Z", false},
		{"nothing", "", false},
	} {
		if got := dead(tt.holder); got != tt.want {
			t.Errorf("%s (%s): dead is %v", tt.name, tt.holder, got)
		}
	}
}

// TestDeadHolder: what a process held that was killed on this host is taken over at once, whatever is left of its claims; what another host holds is not.
func TestDeadHolder(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir, childKill+"=recorded boot done", childTTL+"=10h")
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Fatalf("was not killed: %s", out)
	}
	now := time.Now()
	claims, err := w.store.Claims(t.Context(), now.Add(9*time.Hour))
	if err != nil || len(claims) != 1 || claims[0].Server != "se-1" {
		t.Fatalf("got %v, %v, want a claim of se-1 that lasts", claims, err)
	}
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	elsewhere := []store.Claim{{Server: "se-2", Holder: "other/1/x/elsewhere.1/1"}, claims[0]}
	if alive := r.bury(t.Context(), elsewhere[:1]); len(alive) != 1 {
		t.Errorf("another host's claim was let go")
	}
	shared := claims[0]
	shared.Server = store.Shared + "host/x"
	if alive := r.bury(t.Context(), []store.Claim{shared}); len(alive) != 1 {
		t.Errorf("a claim that is no server's was let go")
	}
	result, err := r.Run(t.Context(), all(b)) // would wait for ten hours
	if err != nil || result.Result != "done" || !result.Resumed {
		t.Fatalf("got %+v, %v", result, err)
	}
	for _, name := range []string{"se-1", "se-2"} {
		if n := w.boots(t, name); n != 2 {
			t.Errorf("%s: got %d boots, want 2", name, n)
		}
	}
}
