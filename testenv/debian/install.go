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

// leftOut are files of packages that would change what this machine does when we are gone. With vpcd's reader file every later
// pcscd of the machine would listen for virtual cards on all of its addresses.
var leftOut = []string{"/etc/reader.conf.d/vpcd"}

// endWait is for apt-get and its dpkg to end after TERM. What is left to finish then may start services again.
const endWait = 2 * time.Minute

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

	endWait time.Duration // 0 is the constant
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
	// Without a terminal of apt-get's own, which would end with apt-get and take dpkg along.
	apt := []string{"apt-get", "-o", "DPkg::Lock::Timeout=" + lockWait, "-o", "Dpkg::Use-Pty=0", "--quiet"}
	// A broken third-party source fails the update as a whole although Debian's own lists came: what counts is the install.
	update := s.run(ctx, talk, env, append(apt, "update")...)
	if ctx.Err() != nil {
		if errors.Is(update, ctx.Err()) {
			return update // it says what became of apt-get
		}
		return ctx.Err()
	}
	if update != nil {
		fmt.Fprintf(talk, "apt-get update: %v; going on with the lists that came\n", update)
	}
	packages := Packages(needs)
	install := append(apt, "install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold")
	for _, path := range leftOut {
		install = append(install, "-o", "Dpkg::Options::=--path-exclude="+path)
	}
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
	if err := ctx.Err(); err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Env = append(cmd.Env, "PATH="+Path(os.Getenv("PATH")))
	cmd.Stdout, cmd.Stderr = out, out
	// In a process group of its own: what ends this program's group must not end dpkg in the middle of a package.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(ctx.Err(), fmt.Errorf("ending %s: %w", args[0], err))
	}
	return s.ending(ctx, args[0], cmd.Process.Pid, ended)
}

// ending waits, after TERM, for the program and for what it has left in its process group: TERM ends apt-get at once, and a dpkg
// that it was running, which got no signal, finishes what it was given.
func (s System) ending(ctx context.Context, name string, group int, ended <-chan error) error {
	wait := s.endWait
	if wait == 0 {
		wait = endWait
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	left := fmt.Errorf("%s was told to end and had not after %s; it was left to finish: %w", name, wait, ctx.Err())
	select {
	case <-ended:
	case <-limit.C:
		return left
	}
	for groupLives(group) {
		select {
		case <-tick.C:
		case <-limit.C:
			return left
		}
	}
	return fmt.Errorf("%s was told to end: %w", name, ctx.Err())
}

// Root reports whether this process may install.
func Root() bool { return os.Geteuid() == 0 }

// Sudo reports whether sudo works here without a password.
func Sudo(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "sudo", "-n", "true").Run() == nil
}
