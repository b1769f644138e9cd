package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"
)

// Environment of a child that is a chain of processes, and how many it has: few enough that their ends may wait for a slow reaper.
const (
	chainVariable = "MAYFLY_INIT_CHAIN"
	chainLength   = 4000
)

func TestMain(m *testing.M) {
	if os.Getpid() == 1 && inMachine() {
		machineInit()
	}
	if len(os.Args) == 3 && os.Args[1] == childArgument {
		machineChild(os.Args[2])
	}
	if os.Getenv(chainVariable) != "" {
		chain()
	}
	os.Exit(m.Run())
}

// chain starts a copy of itself and ends, again and again. The last link says that it got there.
func chain() {
	said := [1]byte{'+'}
	syscall.Write(1, said[:])
	for range chainLength {
		if pid, _, err := syscall.RawSyscall(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0); pid != 0 || err != 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&said)), 1)
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}

// TestCutUserCatchesForks: somebody who loses access runs a chain of processes, each of which starts the next one and ends. Who
// looks through /proc finds none that still lives when its turn comes.
func TestCutUserCatchesForks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	const uid, name = 54321, "mayfly-test-chain"
	exe, err := os.Open("/proc/self/exe") // the user cannot pass the directory that it lies in
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.Dir, cmd.Stdout, cmd.ExtraFiles = "/", w, []*os.File{exe}
	cmd.Env = []string{chainVariable + "=1", "GOMAXPROCS=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 1)
	if _, err := r.Read(said); err != nil {
		t.Fatalf("the chain does not run: %v", err)
	}
	if err := cmd.Wait(); err != nil { // the first link; the chain goes on
		t.Fatal(err)
	}
	if err := cutUser(name, uid); err != nil {
		t.Fatal(err)
	}
	// Every link holds the pipe's other end.
	if _, err := r.Read(said); !errors.Is(err, io.EOF) {
		t.Errorf("the chain was not cut: it got to its end and said %q (%v)", said, err)
	}
}
