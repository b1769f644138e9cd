package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestGroupSettings(t *testing.T) {
	root := t.TempDir()
	group := filepath.Join(root, "sessions")
	if err := makeGroup(root, group, sessionsMemory(512<<20)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cgroup.subtree_control": "+cpu +memory +pids",
		"sessions/pids.max":      "1024",
		"sessions/memory.max":    fmt.Sprint(128 << 20),
		"sessions/cpu.weight":    "20",
	} {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if got := sessionsMemory(64 << 20); got != minMemory {
		t.Errorf("of a small machine: got %d, want %d", got, minMemory)
	}
	if s := sshdService(nil); !s.users {
		t.Error("sshd is started without the bounds of engineers")
	}
	if s := tunnelService(); s.users {
		t.Error("the tunnel is bounded as engineers are")
	}
}

// removeGroup ends what is left in a control group and takes it away.
func removeGroup(t *testing.T, group string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0o600); err != nil {
		t.Error(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for {
		err := os.Remove(group)
		if !errors.Is(err, unix.EBUSY) {
			if err != nil {
				t.Error(err)
			}
			return
		}
		select {
		case <-limit:
			t.Error(err)
			return
		case <-tick.C:
		}
	}
}

// apart runs f in a mount namespace of its own, on a thread that ends with it.
func apart(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			t.Errorf("making a mount namespace: %v", err)
			return
		}
		f()
	}()
	<-done
}

// TestFullHomeIsOnesOwn: whoever fills a home fills that one; others get and use theirs, and what is removed is given back.
func TestFullHomeIsOnesOwn(t *testing.T) {
	dir := t.TempDir()
	apart(t, func() {
		if err := errors.Join(makeHome(dir, "ana", 2000), makeHome(dir, "ben", 2001)); err != nil {
			t.Error(err)
			return
		}
		if err := os.WriteFile(filepath.Join(dir, "ana", "all"), make([]byte, 64<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("filling a home: got %v, want %v", err, unix.ENOSPC)
		}
		if err := errors.Join(makeHome(dir, "ana", 2000), makeHome(dir, "cia", 2002)); err != nil {
			t.Errorf("beside a full home: %v", err)
		}
		for name, uid := range map[string]uint32{"ben": 2001, "cia": 2002} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Uid != uid || st.Gid != uid || st.Mode&0o777 != 0o700 {
				t.Errorf("%s: got uid %d, gid %d, mode %o, %v", name, st.Uid, st.Gid, st.Mode, err)
			}
			if err := os.WriteFile(filepath.Join(dir, name, "note"), []byte("x"), 0o600); err != nil {
				t.Errorf("%s beside a full home: %v", name, err)
			}
		}
		if err := errors.Join(removeHome(dir, "ana"), removeHome(dir, "never")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "ana")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after its removal: %v", err)
		}
	})
}

// TestForkBomb: a program that was started like sshd, and became an engineer's as a session does, is in the control group and gets no more processes than one of them may have.
func TestForkBomb(t *testing.T) {
	uid := 50000 + rand.N(10000) // another in each run: dead processes count against the bound until they are reaped
	dir := t.TempDir()
	apart(t, func() {
		if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
			t.Errorf("mounting cgroup2: %v", err)
			return
		}
		group := filepath.Join(dir, fmt.Sprintf("mayfly-test-%d", os.Getpid()))
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Error(err)
			return
		}
		defer removeGroup(t, group)
		r, err := newReaper(false)
		if err != nil {
			t.Error(err)
			return
		}
		defer r.null.Close()
		r.group = group
		// The program waits for a word before it becomes the user, as sshd waits for a login: by then it has its bounds.
		gate := filepath.Join(t.TempDir(), "gate")
		if err := unix.Mkfifo(gate, 0o600); err != nil {
			t.Error(err)
			return
		}
		bomb := fmt.Sprintf("read go <%s; exec setpriv --reuid %d --clear-groups /bin/sh -c 'i=0; while [ $i -lt 400 ]; do sleep 60 & i=$((i+1)); done; wait'", gate, uid)
		p, err := r.start(spec{name: "bomb", path: "/bin/sh", users: true, args: []string{"-c", bomb}})
		if err != nil {
			t.Error(err)
			return
		}
		if err := os.WriteFile(gate, []byte("go\n"), 0o600); err != nil { // waits for the reader
			t.Error(err)
			return
		}
		in, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err != nil || !strings.Contains("\n"+string(in), fmt.Sprintf("\n%d\n", p.pid)) {
			t.Errorf("the group holds %q, %v, want process %d", in, err, p.pid)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(p.pid, &status, 0, nil); err != nil || status.ExitStatus() == 0 {
			t.Errorf("the program ended with %d, %v, want it to fail at its bound", status.ExitStatus(), err)
		}
		left, err := processesOf(os.DirFS("/proc"), uid)
		if err != nil || len(left) == 0 || len(left) > maxUserProcesses {
			t.Errorf("%d processes, %v, want %d at most, and some", len(left), err, maxUserProcesses)
		}
		if err := cutUser("mayfly-test-bomb", uid); err != nil {
			t.Error(err)
		}
	})
}
