// Package supervise starts the test environment's long-lived programs, writes down who they are, and ends them again: by what is
// written down, and by two marks that no program of ours loses, so that a run that was killed between any two steps leaves
// nothing behind. The marks are an environment variable, which children inherit, and the lab's network namespaces.
package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
	"mayfly/rebuild/power"
)

// Mark is the environment variable that every program of an environment carries; its value is the state directory.
const Mark = "MAYFLY_TESTENV_DIR"

// Limits of ending.
const (
	grace = 10 * time.Second // between TERM and KILL
	reap  = 10 * time.Second // after KILL

	execMoment = 30 * time.Millisecond
)

// Table is the programs of one environment.
type Table struct {
	Dir        string   // state directory, absolute
	Namespaces []string // files of the lab's network namespaces
}

// Record is what is written down of a program.
type Record struct {
	Name    string   `json:"name"`
	PID     int      `json:"pid"`
	Start   uint64   `json:"start"` // clock ticks after boot: with the PID, one process and no other
	Command []string `json:"command"`
}

// Process is a program that was started by this run.
type Process struct {
	Record
	Log  string
	done chan struct{}
	err  error // owned by the waiting goroutine until done is closed
}

// Start starts a program with its output in DIR/logs/NAME.log. begin starts the command, for example inside a namespace.
func (t Table) Start(name string, cmd *exec.Cmd, begin func(*exec.Cmd) error) (*Process, error) {
	log := filepath.Join(t.Dir, "logs", name+".log")
	for _, dir := range []string{filepath.Dir(log), t.records()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("starting %s: %w", name, err)
		}
	}
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer out.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = out
	}
	cmd.Env = t.Environ(cmd.Env)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // the terminal's Ctrl-C is ours to pass on, in order
	}
	if begin == nil {
		begin = (*exec.Cmd).Start
	}
	if err := begin(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{Log: log, done: make(chan struct{})}
	p.Record = Record{Name: name, PID: cmd.Process.Pid, Start: startOf(cmd.Process.Pid), Command: cmd.Args}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	data, err := json.Marshal(p.Record)
	if err == nil {
		err = durable.WriteFile(filepath.Join(t.records(), name+".json"), data, 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("recording %s: %w", name, err), p.End())
	}
	return p, nil
}

// Environ adds the mark to an environment; nil is this process's own.
func (t Table) Environ(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	env = slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, Mark+"=") })
	return append(env, Mark+"="+t.Dir)
}

func (t Table) records() string { return filepath.Join(t.Dir, "processes") }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the program ended; call it after Done.
func (p *Process) Err() error { return p.err }

// End asks the program to end, and makes it.
func (p *Process) End() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := end([]Record{p.Record}, grace); err != nil {
		return err
	}
	<-p.done
	return nil
}

// WaitLine waits until the program's log holds the text, and fails when the program ends first.
func (p *Process) WaitLine(ctx context.Context, text string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		data, err := os.ReadFile(p.Log)
		if err == nil && bytes.Contains(data, []byte(text)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q of %s: %w; its last lines:\n%s", text, p.Name, ctx.Err(), Tail(p.Log, 10))
		case <-p.done:
			return fmt.Errorf("waiting for %q of %s: it ended (%v); its last lines:\n%s", text, p.Name, p.err, Tail(p.Log, 10))
		case <-tick.C:
		}
	}
}

// Tail returns a file's last lines, or why it cannot be read.
func Tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Records lists what was written down and still runs.
func (t Table) Records() ([]Record, error) {
	files, err := filepath.Glob(filepath.Join(t.records(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("listing programs: %w", err)
	}
	var records []Record
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var r Record
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		if r.alive() {
			records = append(records, r)
		}
	}
	return records, nil
}

// Sweep ends every program of the environment, whoever started it, and returns how many there were.
func (t Table) Sweep() (int, error) {
	total, empty := 0, 0
	for range 10 { // what is ending may start something
		found, err := t.find()
		if err != nil {
			return total, err
		}
		if len(found) == 0 {
			// Twice: for a moment inside exec, the kernel shows a process without its environment.
			if empty++; empty == 2 {
				return total, nil
			}
			time.Sleep(execMoment)
			continue
		}
		empty = 0
		total += len(found)
		if err := end(found, grace); err != nil {
			return total, err
		}
	}
	return total, fmt.Errorf("programs of %s keep appearing", t.Dir)
}

// find lists the programs that carry a mark of the environment.
func (t Table) find() ([]Record, error) {
	inodes := map[uint64]bool{}
	for _, path := range t.Namespaces {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil {
			inodes[st.Ino] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	mark, below := []byte(Mark+"="+t.Dir), []byte(power.ContainerMark+"="+t.Dir+"/")
	var found []Record
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		start := startOf(pid)
		if start == 0 || !(marked(pid, mark, below) || inside(pid, inodes)) {
			continue
		}
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(command) == 0 {
			continue // gone, or ended and waiting for its parent
		}
		found = append(found, Record{Name: e.Name(), PID: pid, Start: start, Command: strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")})
	}
	return found, nil
}

// marked says whether a process carries the mark, or is the first one of a container whose driver works below the environment.
func marked(pid int, mark, below []byte) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, mark) || bytes.HasPrefix(v, below) })
}

func inside(pid int, inodes map[uint64]bool) bool {
	var st unix.Stat_t
	err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st)
	return err == nil && inodes[st.Ino]
}

// end sends TERM to all, waits, and sends KILL to those that stay.
func end(records []Record, grace time.Duration) error {
	fds := make([]int, 0, len(records))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, r := range records {
		fd, err := unix.PidfdOpen(r.PID, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("opening process %d (%s): %w", r.PID, r.Name, err)
		}
		if !r.alive() { // looked at after the handle was taken: the handle is that process or a later one
			unix.Close(fd)
			continue
		}
		fds = append(fds, fd)
	}
	for _, step := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, reap}} {
		for _, fd := range fds {
			if err := unix.PidfdSendSignal(fd, step.signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("sending %s: %w", unix.SignalName(step.signal), err)
			}
		}
		if waitAll(fds, step.wait) {
			return nil
		}
	}
	return fmt.Errorf("%d programs did not end", len(fds))
}

// waitAll waits until every process has ended.
func waitAll(fds []int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for _, fd := range fds {
		for {
			left := time.Until(deadline)
			if left <= 0 {
				return false
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			if err == nil && n > 0 {
				break
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return false
			}
		}
	}
	return true
}

func (r Record) alive() bool { return r.Start != 0 && startOf(r.PID) == r.Start }

// startOf is field 22 of /proc/PID/stat; 0 when there is no such process or it has ended and waits for its parent.
func startOf(pid int) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(data[bytes.LastIndexByte(data, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return start
}

// Running lists every program that carries a mark of the environment, written down or not.
func (t Table) Running() ([]Record, error) { return t.find() }
