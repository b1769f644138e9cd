package power

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const maxArguments = 64 << 10

// process is a running machine.
type process struct {
	pid   int
	epoch uint64
}

// guest is how QEMU's command line names the machine and its life.
func (q *QEMU) guest(epoch uint64) string {
	return "guest=mayfly/" + q.server.Name + "/" + strconv.FormatUint(epoch, 10)
}

// find looks through the process table for this machine. A pid file alone would miss a QEMU that was started by a driver that died
// before the file was there, and would mistake a stranger that got an old number.
func (q *QEMU) find() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		epoch, ok, err := q.matches(pid)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, process{pid: pid, epoch: epoch})
		}
	}
	return out, nil
}

// matches says whether a process is this machine, by the arguments that only start gives.
func (q *QEMU) matches(pid int) (epoch uint64, ok bool, err error) {
	args, err := arguments(pid)
	if err != nil || len(args) == 0 || filepath.Base(args[0]) != qemuProgram {
		return 0, false, err
	}
	if argument(args, "-pidfile") != filepath.Join(q.dir, pidFile) {
		return 0, false, nil
	}
	life, named := strings.CutPrefix(argument(args, "-name"), strings.TrimSuffix(q.guest(0), "0"))
	epoch, err = strconv.ParseUint(life, 10, 64)
	if !named || err != nil {
		return 0, false, fmt.Errorf("process %d has this machine's pid file, but not its name", pid)
	}
	return epoch, true, nil
}

// arguments of a process; none for one that has ended or is a kernel thread.
func arguments(pid int) ([]string, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err == nil {
		var data []byte
		data, err = io.ReadAll(io.LimitReader(f, maxArguments))
		err = errors.Join(err, f.Close())
		if err == nil {
			return strings.FieldsFunc(string(data), func(r rune) bool { return r == 0 }), nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	return nil, err
}

func argument(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// kill ends a machine's process and returns when it is gone.
func (q *QEMU) kill(ctx context.Context, p process) error {
	return endProcess(ctx, p.pid, func(pid int) (bool, error) {
		_, ok, err := q.matches(pid)
		return ok, err
	})
}

// endProcess ends a process and returns when it is gone. The pidfd makes sure that the process that is looked at is the one that is ended.
func endProcess(ctx context.Context, pid int, is func(pid int) (bool, error)) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if ok, err := is(pid); err != nil || !ok {
		return err // it has ended by itself
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(pollInterval/time.Millisecond))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for process %d: %w", pid, err)
		}
		if ready > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for process %d to end: %w", pid, err)
		}
	}
}
