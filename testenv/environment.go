package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"mayfly/internal/hint"
	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
	"mayfly/testenv/supervise"
)

// stateName is the one directory that everything lies in, below the module's root.
const stateName = ".testenv"

// environment is one test environment: its directory, network and programs.
type environment struct {
	module string // the module's root
	dir    string // its state directory
	lab    netlab.Lab
	table  supervise.Table
	owner  owner // for whom files are made

	engine  string // container engine that servers run in; empty: they are machines
	tpm     bool   // machines boot by UEFI, and the policy asks for a quote of their TPM
	lacking string // why there can be no virtual cards; empty: there can
	lock    *os.File

	endorsements map[string]string // of the machines' TPMs, by server
}

// newEnvironment finds the module around the working directory. It makes nothing.
func newEnvironment() (*environment, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("finding the module: %w", err)
	}
	root, err := moduleRoot(wd)
	if err != nil {
		return nil, err
	}
	e := &environment{module: root, dir: filepath.Join(root, stateName), owner: callerOf(os.Getenv)}
	e.lab = netlab.Of(e.dir)
	e.table.Dir = e.dir
	for _, n := range e.lab.Namespaces() {
		e.table.Namespaces = append(e.table.Namespaces, n.Path())
	}
	return e, nil
}

func moduleRoot(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		data, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && bytes.HasPrefix(data, []byte("module mayfly\n")) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", hint.New(fmt.Errorf("no module mayfly around %s", dir), "run it in a clone: go run ./testenv demo")
		}
	}
}

func (e *environment) path(names ...string) string {
	return filepath.Join(append([]string{e.dir}, names...)...)
}

func (e *environment) fleet(names ...string) string {
	return e.path(append([]string{"fleet"}, names...)...)
}
func (e *environment) bin(name string) string { return e.path("bin", name) }
func (e *environment) log(name string) string { return e.path("logs", name+".log") }

// upFile says that an environment is wholly up and meant to stay.
func (e *environment) upFile() string { return e.path("up.json") }

// isUp reports whether an environment is meant to be running.
func (e *environment) isUp() bool {
	_, err := os.Stat(e.upFile())
	return err == nil
}

// take takes the environment for this command, so that no two work on one directory at once. The lock ends with the process.
func (e *environment) take() error {
	for {
		if err := os.MkdirAll(e.dir, 0o755); err != nil {
			return fmt.Errorf("making the state directory: %w", err)
		}
		f, err := os.OpenFile(e.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a `down` took the directory away in between
		}
		if err != nil {
			return fmt.Errorf("opening the environment's lock: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			return hint.New(fmt.Errorf("another testenv command works in %s", e.dir), "wait for it, or end it with Ctrl-C")
		}
		mine, err1 := f.Stat()
		now, err2 := os.Stat(e.path("lock"))
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			e.lock = f
			return nil
		}
		f.Close()
	}
}

// release gives the environment back.
func (e *environment) release() {
	if e.lock != nil {
		e.lock.Close()
		e.lock = nil
	}
}

// remove ends every program, takes the network away and then the directory. Safe to repeat; the environment must be taken, if its
// directory is there at all.
func (e *environment) remove() (ended int, err error) {
	e.endContainers()
	ended, err = e.table.Sweep()
	err = errors.Join(err, e.removeEngine(), e.lab.Remove())
	if err != nil {
		return ended, err // keep the directory: it says what is left
	}
	// The lock file goes last, so that nobody takes what is half removed.
	entries, err := os.ReadDir(e.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ended, nil
	}
	if err != nil {
		return ended, fmt.Errorf("removing the state directory: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(e.path(entry.Name())); err != nil {
			return ended, fmt.Errorf("removing the state directory: %w", err)
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return ended, fmt.Errorf("removing the state directory: %w", err)
	}
	return ended, nil
}

// sweep takes away what a killed run of this directory left, and leaves alone what is up.
func (e *environment) sweep() (bool, error) {
	if e.isUp() {
		return false, nil
	}
	left := false
	for _, n := range e.lab.Namespaces() {
		left = left || n.Exists()
	}
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return false, fmt.Errorf("reading the state directory: %w", err)
	}
	for _, entry := range entries {
		left = left || (entry.Name() != "lock" && entry.Name() != "bin")
	}
	ended, err := e.table.Sweep()
	if err != nil {
		return false, err
	}
	if err := errors.Join(e.removeEngine(), e.lab.Remove()); err != nil {
		return false, err
	}
	for _, entry := range entries {
		if entry.Name() == "lock" || entry.Name() == "bin" {
			continue
		}
		if err := os.RemoveAll(e.path(entry.Name())); err != nil {
			return false, fmt.Errorf("sweeping the state directory: %w", err)
		}
	}
	return left || ended > 0, nil
}

// command is a program with the environment's mark and a PATH that holds the administrators' programs.
func (e *environment) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = e.dir
	cmd.Env = e.environ()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = commandWait
	return cmd
}

func (e *environment) environ() []string {
	return append(e.table.Environ(nil), "PATH="+debian.Path(os.Getenv("PATH")), "LC_ALL=C.UTF-8")
}

// output runs a program and returns what it printed; an error holds what it said.
func (e *environment) output(ctx context.Context, name string, args ...string) (string, error) {
	return outputOf(e.command(ctx, name, args...), nil)
}

// outputIn is output inside a namespace.
func (e *environment) outputIn(ctx context.Context, n netlab.Namespace, name string, args ...string) (string, error) {
	return outputOf(e.command(ctx, name, args...), n.Start)
}

// failure is a program that failed: its exit code and what it said.
type failure struct {
	command string
	code    int
	said    string
	err     error
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s: %v: %s", f.command, f.err, f.said)
}
func (f *failure) Unwrap() error { return f.err }

func outputOf(cmd *exec.Cmd, start func(*exec.Cmd) error) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if start == nil {
		start = (*exec.Cmd).Start
	}
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		said := strings.TrimSpace(stderr.String())
		if len(said) > maxSaid {
			said = "…" + said[len(said)-maxSaid:]
		}
		f := &failure{command: shown(cmd.Args), code: -1, said: said, err: err}
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			f.code = exit.ExitCode()
		}
		return stdout.String(), f
	}
	return stdout.String(), nil
}

// shown is a command line for a person: the program's base name and its first arguments.
func shown(args []string) string {
	words := append([]string{filepath.Base(args[0])}, args[1:]...)
	if len(words) > 4 {
		words = append(words[:4], "…")
	}
	return strings.Join(words, " ")
}

// exitCode is the exit code in an error of output; 0 for nil.
func exitCode(err error) int {
	var f *failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return f.code
	}
	return -1
}
