package power

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
)

// Files of a machine's directory.
const (
	pidFile     = "qemu.pid"
	qmpSocket   = "qmp.sock"
	consoleFile = "console.log" // of the latest boot only
	qemuLog     = "qemu.log"
	bootFile    = "boot.json"
	kernelFile  = "kernel" // there only while a boot begins, as is the next
	initrdFile  = "initrd" // it holds the ticket
	lockName    = "lock"
)

// What a machine boots from, and all files of a life.
var (
	bootFiles = []string{kernelFile, initrdFile, mediumFile}
	lifeFiles = append([]string{pidFile, qmpSocket, varsFile}, bootFiles...)
)

// Bounds of the driver.
const (
	qemuProgram   = "qemu-system-x86_64"
	defaultMemory = 512 // MiB
	maxMemory     = 1 << 20
	startTimeout  = 30 * time.Second
	pollInterval  = 20 * time.Millisecond
)

// QEMU drives one server as a QEMU machine on this host. The machine outlives the process that started it; its truth is the
// process table, so that a driver that was killed anywhere finds the machine again.
type QEMU struct {
	server  inventory.Server
	dir     string
	options Options
	log     *slog.Logger

	set uint64 // the epoch whose files SetBoot has laid down; 0: none
}

// Options are not part of an inventory: tests and test environments set them.
type Options struct {
	Netdev string   // QEMU's -netdev without the id, in place of the inventory's tap: "user"
	Extra  []string // further arguments, for example a disk that a server has to refuse
}

var (
	_ Driver = (*QEMU)(nil)
	_ Fencer = (*QEMU)(nil)
)

var macAddress = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)

// OpenQEMU returns the driver of a machine whose files live in dir/NAME.
func OpenQEMU(s inventory.Server, dir string, options Options, log *slog.Logger) (*QEMU, error) {
	dir, err := filepath.Abs(filepath.Join(dir, s.Name))
	if err != nil {
		return nil, err
	}
	p := &s.Power
	switch {
	case s.Name == "" || strings.ContainsAny(s.Name, "/, "):
		return nil, fmt.Errorf("server %q: not a name", s.Name)
	case options.Netdev == "" && (p.Tap == "" || len(p.Tap) >= unix.IFNAMSIZ || strings.ContainsAny(p.Tap, "/, ")):
		return nil, fmt.Errorf("server %s: tap %q is not the name of a network device", s.Name, p.Tap)
	case !macAddress.MatchString(p.MAC):
		return nil, fmt.Errorf("server %s: mac %q is not a hardware address", s.Name, p.MAC)
	case p.MemoryMiB < 0 || p.MemoryMiB > maxMemory:
		return nil, fmt.Errorf("server %s: memory_mib is %d", s.Name, p.MemoryMiB)
	case p.MemoryMiB == 0:
		p.MemoryMiB = defaultMemory
	}
	if _, err := net.ParseMAC(p.MAC); err != nil {
		return nil, fmt.Errorf("server %s: %w", s.Name, err)
	}
	return &QEMU{server: s, dir: dir, options: options, log: log}, nil
}

// ConsoleFile is the path of the machine's console log, of its latest boot.
func (q *QEMU) ConsoleFile() string { return filepath.Join(q.dir, consoleFile) }

// Console returns the end of it.
func (q *QEMU) Console(context.Context) ([]byte, error) {
	data, err := tail(q.ConsoleFile())
	return data, q.wrap("reading the console", err)
}

// Joined does nothing: what the machine booted from was removed when it ran.
func (q *QEMU) Joined(context.Context) error { return nil }

// tail reads the last bytes of a file; none of one that is not there.
func tail(path string) (data []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(max(0, end-MaxConsole), io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, MaxConsole))
}

// Status reads the process table.
func (q *QEMU) Status(context.Context) (Status, error) {
	running, err := q.find()
	if err != nil {
		return Status{}, q.wrap("reading the state", err)
	}
	switch len(running) {
	case 0:
		return Status{}, nil
	case 1:
		return Status{On: true, Epoch: running[0].epoch}, nil
	}
	return Status{On: true}, q.wrap("reading the state", fmt.Errorf("%d processes run this machine", len(running)))
}

// Off kills the machine's process, waits until it is gone, and reads that back.
func (q *QEMU) Off(ctx context.Context) error { return q.OffThrough(ctx, newest) }

// OffThrough is Off of a life that is no newer than this one.
func (q *QEMU) OffThrough(ctx context.Context, epoch uint64) error {
	unlock, err := lockMachine(ctx, q.dir)
	if err != nil {
		return q.wrap("switching off", err)
	}
	defer unlock()
	running, err := q.find()
	for _, p := range running {
		if err == nil {
			err = fence(p.epoch, epoch)
		}
		if err == nil {
			err = q.kill(ctx, p)
		}
	}
	if err != nil {
		return q.wrap("switching off", err)
	}
	if again, err := q.find(); err != nil || len(again) > 0 {
		return q.wrap("switching off", errors.Join(err, fmt.Errorf("%d processes still run this machine", len(again))))
	}
	q.set = 0
	if err := errors.Join(q.endTPM(ctx), q.removeFiles(lifeFiles...)); err != nil {
		return q.wrap("switching off", err)
	}
	if len(running) > 0 {
		q.log.Info("machine off", "server", q.server.Name, "epoch", running[0].epoch)
	}
	return nil
}

// SetBoot lays down what the machine boots from, each file compared with what was signed about it.
func (q *QEMU) SetBoot(ctx context.Context, boot Boot) error {
	if err := checkBoot(boot); err != nil {
		return q.wrap("setting the next boot", err)
	}
	unlock, err := lockMachine(ctx, q.dir)
	if err != nil {
		return q.wrap("setting the next boot", err)
	}
	defer unlock()
	switch running, err := q.find(); {
	case err != nil:
		return q.wrap("setting the next boot", err)
	case len(running) > 0 && running[0].epoch == boot.Epoch:
		return nil // it runs already
	case len(running) > 0:
		return q.wrap("setting the next boot", failf(OnAlready, "it runs with epoch %d; it has to be off before epoch %d", running[0].epoch, boot.Epoch))
	}
	return q.wrap("setting the next boot", q.prepare(boot))
}

func checkBoot(boot Boot) error {
	if boot.Epoch == 0 || strings.ContainsRune(boot.Cmdline, 0) {
		return errors.New("bad epoch or command line")
	}
	return nil
}

// prepare writes the files. They go when the machine runs, or is switched off.
func (q *QEMU) prepare(boot Boot) error {
	q.set = 0
	if err := q.removeFiles(lifeFiles...); err != nil {
		return err
	}
	if q.uefi() {
		if err := q.prepareFirmware(boot); err != nil {
			return err
		}
		q.set = boot.Epoch
		return nil
	}
	if err := writeKernel(filepath.Join(q.dir, kernelFile), boot); err != nil {
		return err
	}
	if err := writeInitrd(filepath.Join(q.dir, initrdFile), boot); err != nil {
		return err
	}
	q.set = boot.Epoch
	return nil
}

// On boots the machine, unless it runs with this epoch already. It returns once QEMU says that the machine runs.
func (q *QEMU) On(ctx context.Context, boot Boot) error {
	if err := checkBoot(boot); err != nil {
		return q.wrap("switching on", err)
	}
	unlock, err := lockMachine(ctx, q.dir)
	if err != nil {
		return q.wrap("switching on", err)
	}
	defer unlock()
	running, err := q.find()
	if err != nil {
		return q.wrap("switching on", err)
	}
	if len(running) > 0 {
		if running[0].epoch != boot.Epoch {
			return q.wrap("switching on", failf(OnAlready, "it runs with epoch %d; it has to be off before epoch %d", running[0].epoch, boot.Epoch))
		}
	} else if err := q.start(ctx, boot); err != nil {
		return q.wrap("switching on", err)
	}
	q.set = 0
	if err := q.awaitRunning(ctx); err != nil {
		return q.wrap("switching on", err)
	}
	// QEMU has read them: the ticket need not lie around.
	if err := q.removeFiles(bootFiles...); err != nil {
		return q.wrap("switching on", err)
	}
	q.log.Info("machine on", "server", q.server.Name, "epoch", boot.Epoch)
	return nil
}

// start writes down what is about to run, then runs it as a session of its own.
func (q *QEMU) start(ctx context.Context, boot Boot) error {
	if q.set != boot.Epoch {
		if err := q.prepare(boot); err != nil {
			return err
		}
	}
	intent, err := json.Marshal(struct {
		Epoch uint64 `json:"epoch"`
	}{boot.Epoch})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(q.dir, bootFile), append(intent, '\n'), 0o600); err != nil {
		return err
	}
	if q.uefi() {
		if err := q.startTPM(ctx); err != nil {
			return err
		}
	}
	args := q.arguments(ctx, boot)
	out, err := os.OpenFile(filepath.Join(q.dir, qemuLog), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(qemuProgram, args...)
	cmd.Dir = q.dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), out.Close()); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return hint.New(err, "install it: apt-get install qemu-system-x86")
		}
		return err
	}
	go cmd.Wait() // reaps it, should it end while this process lives; what it says is in the log
	return nil
}

func (q *QEMU) arguments(ctx context.Context, boot Boot) []string {
	accel := "tcg"
	if kvmWorks(ctx) {
		accel = "kvm"
	}
	smm := "auto"
	if q.server.Power.SecureBootVars != "" {
		smm = "on" // which keeps the kernel from the firmware's variables
	}
	netdev := q.options.Netdev
	if netdev == "" {
		netdev = "tap,ifname=" + q.server.Power.Tap + ",script=no,downscript=no"
	}
	args := []string{
		"-name", q.guest(boot.Epoch),
		"-pidfile", filepath.Join(q.dir, pidFile),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "q35,sata=off,smm=" + smm + ",accel=" + accel, "-cpu", "max", "-smp", "1",
		"-m", strconv.Itoa(q.server.Power.MemoryMiB),
		"-netdev", netdev + ",id=net0",
		"-device", "virtio-net-pci,netdev=net0,romfile=,mac=" + q.server.Power.MAC,
		"-device", "virtio-rng-pci",
		"-serial", "file:" + consoleFile,
		"-qmp", "unix:" + qmpSocket + ",server=on,wait=off",
		"-no-reboot",
	}
	if q.uefi() {
		args = append(args, q.firmwareArguments()...)
	} else {
		args = append(args, "-kernel", kernelFile, "-initrd", initrdFile, "-append", boot.Cmdline)
	}
	return append(args, q.options.Extra...)
}

// awaitRunning asks through QMP until the machine runs.
func (q *QEMU) awaitRunning(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for gone := 0; ; {
		err := q.running(ctx)
		if err == nil {
			return nil
		}
		running, ferr := q.find()
		if ferr == nil && len(running) == 0 {
			gone++ // for a moment, a process that has just begun shows no arguments
		} else {
			gone = 0
		}
		if gone > 1 {
			text, rerr := os.ReadFile(filepath.Join(q.dir, qemuLog))
			return errors.Join(fmt.Errorf("qemu ended: %s", strings.TrimSpace(string(text[:min(len(text), 1000)]))), rerr)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for qemu: %w (%w)", err, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

func (q *QEMU) running(ctx context.Context) error {
	var state struct {
		Status string `json:"status"`
	}
	if err := q.qmp(ctx, "query-status", nil, &state); err != nil {
		return err
	}
	if state.Status != "running" {
		return fmt.Errorf("the machine is %q", state.Status)
	}
	return nil
}

// DumpMemory writes the machine's memory to a new file as an ELF core, for tests that look for what should not be there.
func (q *QEMU) DumpMemory(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return q.wrap("dumping memory", q.qmp(ctx, "dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + path}, nil))
}

func (q *QEMU) removeFiles(names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(q.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (q *QEMU) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("server %s: %s: %w", q.server.Name, doing, err)
}
