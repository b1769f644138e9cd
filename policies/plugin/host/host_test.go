package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/hint"
	"mayfly/policies/plugin"
)

// patience bounds how long a test waits for something that must happen.
const patience = 30 * time.Second

var site struct {
	once sync.Once
	path string
	err  error
}

// TestMain removes the example plugin at the end.
func TestMain(m *testing.M) {
	code := m.Run()
	if site.path != "" {
		if err := os.RemoveAll(filepath.Dir(site.path)); err != nil {
			code = 1
		}
	}
	os.Exit(code)
}

// lay builds the example plugin once, and puts it into a plugin directory.
func lay(t testing.TB) (dir string, pin plugin.Pin) {
	t.Helper()
	site.once.Do(func() {
		var built string
		if built, site.err = os.MkdirTemp("", "mayfly-site-"); site.err != nil {
			return
		}
		site.path = filepath.Join(built, "site")
		cmd := exec.Command("go", "build", "-o", site.path, "../testdata/site")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("%s", out)
			site.err = err
		}
	})
	if site.err != nil {
		t.Fatal(site.err)
	}
	dir = t.TempDir()
	data, err := os.ReadFile(site.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "site"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return dir, plugin.Pin{Name: "site", SHA256: hex.EncodeToString(sum[:]), Deadline: time.Second}
}

func newHost(t testing.TB, dir string) *Host {
	t.Helper()
	h, err := New(dir, []uint32{0, uint32(os.Geteuid())}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// runs waits until a plugin answers.
func runs(t testing.TB, h *Host, pin plugin.Pin) {
	t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; <-poll.C {
		v := h.Decide(t.Context(), []plugin.Pin{pin}, plugin.Request{Kind: "login", User: "anna"})
		if v.Outcome == plugin.Allowed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never ran: %+v", v)
		}
	}
}

// TestPlugin asks the example plugin everything that a plugin can do wrong.
func TestPlugin(t *testing.T) {
	dir, pin := lay(t)
	t.Setenv("SECRET_OF_THE_HOST", "x")
	h := newHost(t, dir)
	list := []plugin.Pin{pin}
	if v := h.Decide(t.Context(), list, plugin.Request{User: "anna"}); v.Outcome != plugin.Failed {
		t.Errorf("before it is pinned: %+v", v)
	}
	h.Pin(list)
	runs(t, h, pin)
	for _, tt := range []struct {
		name    string
		q       plugin.Request
		outcome string
		text    string
	}{
		{"nothing against it", plugin.Request{Kind: "login", User: "anna"}, plugin.Allowed, ""},
		{"denied", plugin.Request{Kind: "login", User: "evil"}, plugin.Denied, "not on the rota"},
		{"target denied", plugin.Request{Kind: "target", User: "anna", Server: "se-1", Port: 23}, plugin.Denied, "no telnet"},
		{"late", plugin.Request{Kind: "login", User: "slow"}, plugin.Late, "no answer within 1s"},
		{"an error", plugin.Request{Kind: "login", User: "wrong"}, plugin.Failed, "no rota"},
		{"a crash", plugin.Request{Kind: "login", User: "crash"}, plugin.Failed, ""},
	} {
		runs(t, h, pin) // it was started again
		if v := h.Decide(t.Context(), list, tt.q); v.Outcome != tt.outcome || !strings.Contains(v.Text, tt.text) {
			t.Errorf("%s: got %+v, want %s", tt.name, v, tt.outcome)
		}
	}
	runs(t, h, pin)
	v := h.Decide(t.Context(), list, plugin.Request{Kind: "login", User: "who"})
	if strings.Contains(v.Text, "SECRET") || strings.Contains(v.Text, "PATH") || strings.Contains(v.Text, "HOME") || !strings.Contains(v.Text, "MAYFLY_PLUGIN") {
		t.Errorf("its environment: %s", v.Text)
	}
	// The file may go: what runs, and what is started again, is the copy that was hashed at its start.
	h.Pin(nil)
	if v := h.Decide(t.Context(), list, plugin.Request{Kind: "login", User: "anna"}); v.Outcome != plugin.Failed {
		t.Errorf("after it was unpinned: %+v", v)
	}
	if v := (plugin.Verdict{}); v.Outcome == plugin.Allowed {
		t.Error("the zero verdict allows")
	}
}

// TestLoadRefuses gives the host files that are not the pinned one, or that others could change.
func TestLoadRefuses(t *testing.T) {
	owners := []uint32{0, uint32(os.Geteuid())}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string, pin *plugin.Pin)
		want  string
	}{
		{"another file", func(t *testing.T, dir string, _ *plugin.Pin) { write(t, dir, "site", "x") }, "and the policy pins"},
		{"another hash", func(_ *testing.T, _ string, p *plugin.Pin) { p.SHA256 = strings.Repeat("0", 64) }, "and the policy pins"},
		{"missing", func(t *testing.T, dir string, _ *plugin.Pin) { check(t, os.Remove(filepath.Join(dir, "site"))) }, "no such file"},
		{"file that others can change", func(t *testing.T, dir string, _ *plugin.Pin) { check(t, os.Chmod(filepath.Join(dir, "site"), 0o775)) }, "others could change it"},
		{"directory that others can change", func(t *testing.T, dir string, _ *plugin.Pin) { check(t, os.Chmod(dir, 0o777)) }, "others could put a plugin there"},
		{"symbolic link", func(t *testing.T, dir string, _ *plugin.Pin) {
			check(t, os.Rename(filepath.Join(dir, "site"), filepath.Join(dir, "other")))
			check(t, os.Symlink("other", filepath.Join(dir, "site")))
		}, "symbolic links"},
		{"a directory", func(t *testing.T, dir string, _ *plugin.Pin) {
			check(t, os.Remove(filepath.Join(dir, "site")))
			check(t, os.Mkdir(filepath.Join(dir, "site"), 0o755))
		}, "no regular file"},
		{"a path", func(_ *testing.T, _ string, p *plugin.Pin) { p.Name = "../site" }, "no file name"},
		{"no owner's", func(t *testing.T, dir string, _ *plugin.Pin) {
			if os.Geteuid() == 0 {
				check(t, os.Chown(filepath.Join(dir, "site"), 12345, 12345))
			} else {
				check(t, os.Remove(filepath.Join(dir, "site")))
				check(t, os.Link("/bin/true", filepath.Join(dir, "site")))
			}
		}, "does not belong to root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "no owner's" && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			dir, pin := lay(t)
			if f, err := Load(dir, pin, owners); err != nil {
				t.Fatalf("the good file: %v", err)
			} else {
				f.Close()
			}
			tt.spoil(t, dir, &pin)
			if f, err := Load(dir, pin, owners); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %q", f, err, tt.want)
			} else if strings.Contains(tt.want, "others could") && hint.Of(err) == "" {
				t.Errorf("%v: no hint", err)
			}
			h := newHostAnyway(dir, owners)
			h.Pin([]plugin.Pin{pin})
			if v := h.Decide(t.Context(), []plugin.Pin{pin}, plugin.Request{User: "anna"}); v.Outcome != plugin.Failed {
				t.Errorf("got %+v, want it to be denied", v)
			}
			check(t, h.Close())
		})
	}
}

// newHostAnyway leaves out the check at the start, so that the one at each load is seen.
func newHostAnyway(dir string, owners []uint32) *Host {
	return &Host{dir: dir, sockets: filepath.Join(dir, "none"), owners: owners, log: slog.New(slog.DiscardHandler), running: map[plugin.Pin]*process{}}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNotAPlugin pins a program that is none: it is denied, and started ever more slowly.
func TestNotAPlugin(t *testing.T) {
	dir, pin := lay(t)
	data, err := os.ReadFile("/bin/true")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "site"), data, 0o755))
	sum := sha256.Sum256(data)
	pin.SHA256 = hex.EncodeToString(sum[:])
	h := newHost(t, dir)
	h.Pin([]plugin.Pin{pin})
	if v := h.Decide(t.Context(), []plugin.Pin{pin}, plugin.Request{User: "anna"}); v.Outcome != plugin.Failed {
		t.Errorf("got %+v", v)
	}
}

// TestRelay asks through the socket, as the bastion does, and takes the host away.
func TestRelay(t *testing.T) {
	dir, pin := lay(t)
	h := newHost(t, dir)
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- plugin.ServeRelay(t.Context(), there, h) }()
	r := plugin.NewRelay(here)
	list := []plugin.Pin{pin}
	check(t, r.Pin(list))
	runs(t, h, pin)
	var asking sync.WaitGroup
	for i := range 40 {
		asking.Go(func() {
			user, want := "anna", plugin.Allowed
			if i%2 == 0 {
				user, want = "evil", plugin.Denied
			}
			if v := r.Decide(context.Background(), list, plugin.Request{Kind: "login", User: user}); v.Outcome != want {
				t.Errorf("%s: got %+v", user, v)
			}
		})
	}
	asking.Wait()
	if v := r.Decide(t.Context(), list, plugin.Request{Kind: "login", User: strings.Repeat("a", plugin.MaxMessage)}); v.Outcome != plugin.Failed {
		t.Errorf("a question that is too long: %+v", v)
	}
	check(t, there.Close())
	<-r.Done()
	if v := r.Decide(t.Context(), list, plugin.Request{Kind: "login", User: "anna"}); v.Outcome != plugin.Failed {
		t.Errorf("without a host: %+v", v)
	}
	<-done
}

// TestRelayDistrustsTheHost feeds the bastion's end what a host that was taken over could send.
func TestRelayDistrustsTheHost(t *testing.T) {
	for _, text := range []string{"junk\n", "{}\n", `{"id":1,"verdict":{}}` + "\n", `{"id":7,"verdict":{"outcome":"allowed"}}` + "\n", strings.Repeat("a", 2*plugin.MaxMessage)} {
		here, there := net.Pipe()
		r := plugin.NewRelay(here)
		go func() {
			buffer := make([]byte, plugin.MaxMessage)
			if _, err := there.Read(buffer); err != nil {
				return
			}
			if _, err := there.Write([]byte(text)); err != nil {
				return
			}
		}()
		v := r.Decide(t.Context(), []plugin.Pin{{Name: "site", Deadline: 100 * time.Millisecond}}, plugin.Request{User: "anna"})
		if v.Outcome == plugin.Allowed {
			t.Errorf("%.40q: got %+v", text, v)
		}
		check(t, there.Close())
		if err := r.Close(); err != nil {
			t.Logf("closing: %v", err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	dir, pin := lay(b)
	h := newHost(b, dir)
	list := []plugin.Pin{pin}
	h.Pin(list)
	runs(b, h, pin)
	q := plugin.Request{Kind: "login", User: "anna", Identity: "engineer", Source: "198.51.100.7", Key: "SHA256:xyz", Time: time.Now().UTC().Truncate(time.Second)}
	for _, way := range []struct {
		name   string
		decide func() plugin.Verdict
	}{{"host", func() plugin.Verdict { return h.Decide(b.Context(), list, q) }}, {"relay", relayed(b, h, list, q)}} {
		b.Run(way.name, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if v := way.decide(); v.Outcome != plugin.Allowed {
						b.Errorf("got %+v", v)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}

func relayed(b *testing.B, h *Host, list []plugin.Pin, q plugin.Request) func() plugin.Verdict {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- plugin.ServeRelay(b.Context(), there, h) }()
	r := plugin.NewRelay(here)
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Log(err)
		}
		<-done
	})
	return func() plugin.Verdict { return r.Decide(b.Context(), list, q) }
}

// TestPluginsChildrenEnd: what a plugin has started ends with it.
func TestPluginsChildrenEnd(t *testing.T) {
	dir, pin := lay(t)
	h := newHost(t, dir)
	h.Pin([]plugin.Pin{pin})
	runs(t, h, pin)
	v := h.Decide(t.Context(), []plugin.Pin{pin}, plugin.Request{Kind: "login", User: "fork"})
	child, err := strconv.Atoi(v.Text)
	if err != nil {
		t.Fatalf("got %+v", v)
	}
	alive := func() bool { // not a zombie that nobody has reaped yet
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	if !alive() {
		t.Fatal("the child does not run")
	}
	h.Pin(nil)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); alive(); <-poll.C {
		if time.Now().After(deadline) {
			syscall.Kill(child, syscall.SIGKILL)
			t.Fatal("the child of a plugin that has ended lives on")
		}
	}
}

// What is run is a copy that nobody can change any more, neither by writing nor by making it longer or shorter.
func TestLoadedIsSealed(t *testing.T) {
	dir := t.TempDir()
	data := []byte("#!/bin/false\n")
	if err := os.WriteFile(filepath.Join(dir, "site"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	f, err := Load(dir, plugin.Pin{Name: "site", SHA256: hex.EncodeToString(sum[:])}, []uint32{uint32(os.Geteuid())})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it was written to")
	}
	if err := f.Truncate(1); err == nil {
		t.Error("it was cut")
	}
	if err := f.Truncate(1 << 10); err == nil {
		t.Error("it was made longer")
	}
}
