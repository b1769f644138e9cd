package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/command"
	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
)

// clone is a copy of the source tree in another directory, with the built program: what a person has after `git clone`.
type clone struct {
	env     *environment
	program string
}

func newClone(t *testing.T) *clone {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it runs a fleet of machines for minutes")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces and taps")
	}
	if missing := debian.Missing(slices.Concat(demoNeeds, cardNeeds)); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(root, "mayfly")
	copyTree(t, "..", module)
	e := &environment{module: module, dir: filepath.Join(module, stateName)}
	e.lab = netlab.Of(e.dir)
	e.table.Dir = e.dir
	for _, n := range e.lab.Namespaces() {
		e.table.Namespaces = append(e.table.Namespaces, n.Path())
	}
	c := &clone{env: e, program: filepath.Join(root, "testenv")}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", c.program, "./testenv")
	build.Dir = module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building testenv: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if _, err := e.remove(); err != nil {
			t.Errorf("taking the environment away: %v", err)
		}
	})
	return c
}

// copyTree copies the source tree without what is not source.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (rel == ".git" || rel == stateName || rel == "bin"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil // .git of a worktree is a file, and no source either
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// start starts a verb. Its words go to the test's log when the test fails.
func (c *clone) start(t *testing.T, args ...string) (cmd *exec.Cmd, stdout *bytes.Buffer) {
	t.Helper()
	stdout = &bytes.Buffer{}
	talk := filepath.Join(t.TempDir(), "talk")
	f, err := os.Create(talk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd = exec.Command(c.program, args...)
	cmd.Dir = c.env.module
	cmd.Stdout, cmd.Stderr = stdout, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			data, err := os.ReadFile(talk)
			t.Logf("testenv %s said (%v):\n%s", strings.Join(args, " "), err, data)
		}
	})
	return cmd, stdout
}

// run runs a verb to its end.
func (c *clone) run(t *testing.T, args ...string) (code int, stdout string) {
	t.Helper()
	cmd, out := c.start(t, args...)
	return codeOf(cmd.Wait()), out.String()
}

func codeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// awaitMachine waits until a machine of the environment runs.
func (c *clone) awaitMachine(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		running, err := c.env.table.Running()
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(running, func(r recordOf) bool {
			return strings.Contains(r.Command[0], "qemu-system") && slices.Contains(r.Command, "-netdev")
		}) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no machine was started")
}

// running is the environment's programs, each a line.
func (c *clone) running(t *testing.T) string {
	t.Helper()
	records, err := c.env.table.Records()
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, r := range records {
		fmt.Fprintf(&lines, "%s %d %d\n", r.Name, r.PID, r.Start)
	}
	return lines.String()
}

// nothingLeft sees that no program, namespace or file of the environment is left.
func (c *clone) nothingLeft(t *testing.T) {
	t.Helper()
	running, err := c.env.table.Running()
	if err != nil || len(running) > 0 {
		t.Errorf("got programs %v, %v, want none", running, err)
	}
	if c.env.anyNamespace() {
		t.Error("a network namespace is left")
	}
	if _, err := os.Stat(c.env.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state directory is left: %v", err)
	}
}

// TestDemo is the main job, in another directory.
func TestDemo(t *testing.T) {
	c := newClone(t)
	code, out := c.run(t, "demo", "-o", "json")
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &object); err != nil {
		t.Fatalf("stdout is no single JSON object: %v\n%s", err, out)
	}
	for _, name := range []string{"checks", "servers", "rebuilt", "below_floor", "failed_fetches"} {
		if _, ok := object[name]; !ok {
			t.Errorf("the object lacks %s", name)
		}
	}
	if len(object) != 5 {
		t.Errorf("got %d members, want 5", len(object))
	}
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, check := range r.Checks {
		if names[check.Name] {
			t.Errorf("two checks are called %q", check.Name)
		}
		names[check.Name] = true
		if !check.OK {
			t.Errorf("%s: %s", check.Name, check.Detail)
		}
	}
	if code != command.OK || !r.good() || r.Servers != 3 || r.Rebuilt != 3 {
		t.Errorf("got exit %d, %d checks, %d of %d rebuilt, %d below floor, %d failed fetches", code, len(r.Checks), r.Rebuilt, r.Servers, r.BelowFloor, r.FailedFetches)
	}
	c.nothingLeft(t)
}

// TestFleet brings a fleet up after a killed and an interrupted run, uses it, gives it bad input, and takes it down.
func TestFleet(t *testing.T) {
	c := newClone(t)
	t.Run("interrupted", func(t *testing.T) {
		cmd, _ := c.start(t, "demo")
		c.awaitMachine(t)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if code := codeOf(cmd.Wait()); code != command.Failed {
			t.Errorf("got exit %d, want %d", code, command.Failed)
		}
		c.nothingLeft(t)
	})
	t.Run("killed", func(t *testing.T) {
		cmd, _ := c.start(t, "up")
		c.awaitMachine(t)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // says that it was killed
		if running, err := c.env.table.Running(); err != nil || len(running) == 0 {
			t.Fatalf("got programs %v, %v: the kill left nothing to sweep", running, err)
		}
	})
	t.Setenv(envTestBastion, "1")
	code, out := c.run(t, "up") // sweeps what the killed run left
	if code != command.OK || !strings.Contains(out, "ssh -F .testenv/ssh_config se-1") || !strings.Contains(out, "go run ./testenv down") {
		t.Fatalf("up: got exit %d, %q", code, out)
	}
	d := c.open(t)
	t.Run("ssh from this machine", func(t *testing.T) {
		got, err := outputOf(c.env.command(t.Context(), "ssh", "-F", c.env.sshConfig(), "-o", "BatchMode=yes", "se-1", "hostname"), nil)
		if err != nil || strings.TrimSpace(got) != "se-1" {
			t.Errorf("got %q, %v, want se-1", got, err)
		}
	})
	t.Run("up again", func(t *testing.T) {
		before := c.running(t)
		code, again := c.run(t, "up")
		if code != command.OK || again != out {
			t.Errorf("got exit %d, %q, want the same words", code, again)
		}
		if after := c.running(t); after != before {
			t.Errorf("programs before:\n%safter:\n%swant the same", before, after)
		}
		if code, _ := c.run(t, "demo"); code != command.Failed {
			t.Errorf("demo beside it: got exit %d, want %d", code, command.Failed)
		}
	})
	t.Run("status", func(t *testing.T) {
		code, out := c.run(t, "status", "-o", "json")
		var s struct {
			Up       bool
			Programs []struct{ Name string }
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil || code != command.OK || !s.Up || len(s.Programs) < 8 {
			t.Errorf("got exit %d, %s, %v", code, out, err)
		}
	})
	t.Run("bad input", func(t *testing.T) { badInput(t, d) })
	t.Run("rebuilt bastion", func(t *testing.T) { rebuiltBastion(t, d) })
	t.Run("drained", func(t *testing.T) { drained(t, d) })
	t.Run("lives", func(t *testing.T) { lives(t, d) })
	for range 2 {
		if code, _ := c.run(t, "down"); code != command.OK {
			t.Errorf("down: got exit %d", code)
		}
	}
	c.nothingLeft(t)
}

// open looks at an environment that is up from inside the test.
func (c *clone) open(t *testing.T) *demo {
	t.Helper()
	return newDemo(c.env, &command.Call{Stdout: io.Discard, Stderr: io.Discard})
}

// badInput gives a running controller what it must turn down, and sees that nothing changed.
func badInput(t *testing.T, d *demo) {
	before, err := d.servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a port in use", []string{"serve"}, command.Failed, "hint:"},
		{"a second signer", []string{"signer"}, command.Failed, "signer"},
		{"the same approver twice", []string{"image", "sign", "--release", releaseVersion, "--key", d.e.approverKey("ana")}, command.Refused, "ana"},
		{"no such release", []string{"image", "use", "7"}, command.Failed, "7"},
		{"an unreadable key", []string{"policy", "sign", "--key", d.e.path("keys", "nobody")}, command.Failed, "nobody"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := d.fleetctl(ctx, test.args...)
			var f *failure
			if !errors.As(err, &f) || f.code != test.code || !strings.Contains(f.said, test.want) {
				t.Errorf("got %v, want exit %d and %q", err, test.code, test.want)
			}
		})
	}
	after, err := d.servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range before {
		if a := after[name]; a.State != s.State || a.Epoch != s.Epoch {
			t.Errorf("%s went from %s in life %d to %s in life %d", name, s.State, s.Epoch, a.State, a.Epoch)
		}
	}
}
