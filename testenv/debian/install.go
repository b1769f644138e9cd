package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// lockWait is how long apt-get waits for another apt-get, in seconds.
const lockWait = "300"

// marker is in every policy-rc.d of ours.
const marker = "# made by mayfly's testenv; taken away when apt-get has ended"

// policyText says "start nothing" while the run that laid it lives and holds its lock, and then nothing any more.
func (s System) policyText() string {
	return "#!/bin/sh\n" + marker + "\nflock --nonblock '" + s.lock() + "' true && exit 0\nexit 101\n"
}

// System is the machine that is installed on. The zero value is this one; tests set their own.
type System struct {
	Root string                                                                       // prefix of the files below; "" is /
	Run  func(ctx context.Context, out io.Writer, env []string, args ...string) error // nil runs the command
}

func (s System) policy() string { return filepath.Join("/", s.Root, "usr/sbin/policy-rc.d") }
func (s System) lock() string   { return filepath.Join("/", s.Root, "run/mayfly-install.lock") }

// Install installs the packages that the needs name. talk gets apt-get's output. It needs root.
func (s System) Install(ctx context.Context, needs []Need, talk io.Writer) (err error) {
	unlock, err := s.serialise(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	remove, err := s.quiet()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	env := []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	apt := []string{"apt-get", "-o", "DPkg::Lock::Timeout=" + lockWait, "--quiet"}
	// A broken third-party source fails the update as a whole although Debian's own lists came: what counts is the install.
	update := s.run(ctx, talk, env, append(apt, "update")...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if update != nil {
		fmt.Fprintf(talk, "apt-get update: %v; going on with the lists that came\n", update)
	}
	packages := Packages(needs)
	install := append(apt, "install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold")
	if err := s.run(ctx, talk, env, append(install, packages...)...); err != nil {
		return errors.Join(fmt.Errorf("installing %s: %w", strings.Join(packages, " "), err), update)
	}
	return nil
}

// Sweep takes away what a killed run left. It is nil when there is nothing to do or this user may not.
func (s System) Sweep() error {
	if !s.ours() {
		return nil
	}
	unlock, held, err := s.tryLock()
	if held || errors.Is(err, fs.ErrPermission) {
		return nil // an install is running, or not our machine to mend
	}
	if err != nil {
		return err
	}
	defer unlock()
	if !s.ours() {
		return nil
	}
	if err := os.Remove(s.policy()); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s of a killed run: %w", s.policy(), err)
	}
	return nil
}

// quiet lays policy-rc.d so that no package starts a service, and returns what takes it away.
func (s System) quiet() (remove func() error, err error) {
	path := s.policy()
	if _, err := os.Lstat(path); err == nil && !s.ours() {
		return func() error { return nil }, nil // the machine has a policy of its own
	}
	if err := os.WriteFile(path, []byte(s.policyText()), 0o755); err != nil {
		return nil, fmt.Errorf("laying %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return nil, fmt.Errorf("laying %s: %w", path, err)
	}
	return func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing %s: %w", path, err)
		}
		return nil
	}, nil
}

func (s System) ours() bool {
	data, err := os.ReadFile(s.policy())
	return err == nil && string(data) == s.policyText()
}

// tryLock takes the lock that keeps two installs of ours apart. It ends with the process that holds it.
func (s System) tryLock() (unlock func(), held bool, err error) {
	f, err := os.OpenFile(s.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("opening %s: %w", s.lock(), err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, true, nil
		}
		return nil, false, fmt.Errorf("locking %s: %w", s.lock(), err)
	}
	return func() { f.Close() }, false, nil
}

func (s System) serialise(ctx context.Context) (unlock func(), err error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		unlock, held, err := s.tryLock()
		if err != nil {
			return nil, err
		}
		if !held {
			return unlock, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another install: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (s System) run(ctx context.Context, out io.Writer, env []string, args ...string) error {
	if s.Run != nil {
		return s.Run(ctx, out, env, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Env = append(cmd.Env, "PATH="+Path(os.Getenv("PATH")))
	cmd.Stdout, cmd.Stderr = out, out
	// Not killed in the middle of dpkg: TERM lets apt-get end in order.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// Root reports whether this process may install.
func Root() bool { return os.Geteuid() == 0 }

// Sudo reports whether sudo works here without a password.
func Sudo(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "sudo", "-n", "true").Run() == nil
}
