package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/measure"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/uki"
)

// The test program is PID 1 of the machines of vm_test.go: it runs this program's own stages, and then says what a server's kernel lets
// it do. A server has nobody who could ask.

// caseWord on the kernel's command line says what a machine is for.
const (
	caseWord      = "mayfly.case="
	childArgument = "machine-child"
	childUID      = 2000
	quickLook     = 500 * time.Millisecond // in place of diskEvery
	muteSeconds   = 5
)

func inMachine() bool { return slices.Equal(os.Args, []string{"/init"}) }

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "error " + err.Error()
	}
	return strings.Join(strings.Fields(string(data)), " ")
}

// machineInit does not return.
func machineInit() {
	con := &console{w: os.Stdout}
	ctx, cancel := context.WithCancel(context.Background())
	end := &ending{con: con, cancel: cancel}
	b := &boot{con: con, end: end, limit: newDeadline(), up: uptime}
	b.watchEnds(ctx)
	if err := b.machine(ctx, cancel); err != nil {
		b.hold(ctx, err)
	}
	select {}
}

// machine runs the stages as boot.run does, with the papers and the modules of the initramfs.
func (b *boot) machine(ctx context.Context, cancel context.CancelFunc) error {
	for _, dir := range []string{"/tmp", "/var/tmp", "/home", "/var/lib/unbound"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, s := range b.stages() {
		b.con.stage("%s", s.name)
		do := s.do
		switch s.name {
		case "modules":
			do = func() error { return loadModules(release.StubModulesPath) }
		case "refusals":
			found, err := findStorage(os.DirFS("/sys"))
			say("storage blocks %q functions %d driven %d %v", found.blocks, len(found.functions), len(found.driven), err)
		case "papers":
			papers := map[string][32]byte{}
			for _, name := range []string{ticket.TrustFile, ticket.File, ticket.SignatureFile, release.StatementFile} {
				data, err := os.ReadFile("/" + name)
				if errors.Is(err, os.ErrNotExist) {
					data, err = os.ReadFile(uki.CredentialDir + name + uki.CredentialSuffix)
				}
				if err != nil {
					return err
				}
				papers[name] = sha256.Sum256(data)
				if err := os.WriteFile(filepath.Join(runDir, name), data, 0o600); err != nil {
					return err
				}
			}
			err := measure.Extend(attest.ReleasePCR, papers[release.StatementFile], papers[ticket.TrustFile], papers[ticket.File]) // as the stub does
			say("measured %v", err)
		}
		began := time.Now()
		if err := do(); err != nil {
			if strings.Contains(read("/proc/cmdline"), caseWord+"mute") {
				b.mute(cancel)
			}
			return coded(s.code, err)
		}
		say("took %s %s", s.name, time.Since(began).Round(time.Millisecond))
	}
	if err := watchButtons("/dev/input", func() { go b.end.stop("power button") }); err != nil {
		return err
	}
	_, kind, _ := strings.Cut(read("/proc/cmdline"), caseWord)
	kind, _, _ = strings.Cut(kind, " ")
	say("case %s", kind)
	switch kind {
	case "readings":
		readings(b)
	case "join":
		_, err := b.join(ctx)
		return err
	case "swap":
		swap()
	case "restart":
		b.end.restart("signed order")
	}
	go watchDisks(ctx, quickLook, func() error {
		idle, err := disks("/sys", b.papers.ticket.Disks)
		if len(idle) > 0 {
			say("idle %s", strings.Join(idle, " "))
		}
		return errors.Join(err, noSwap("/proc/swaps"))
	}, func(err error) {
		reason, detail := code(err)
		b.con.stage("leaving: %s: %s", reason, detail)
		if err := report(ctx, b.papers, err); err != nil {
			b.con.stage("report: %v", err)
		}
		b.end.stop(reason)
	})
	say("up")
	select {}
}

// mute stops feeding the watchdogs, as if this process hung, with a shorter time for the test.
func (b *boot) mute(cancel context.CancelFunc) {
	seconds := int32(muteSeconds)
	for _, f := range b.dogs.files {
		if err := control(f, setTimeout, unsafe.Pointer(&seconds)); err != nil {
			say("shorter: %v", err)
		}
	}
	cancel() // of the deadline's watch, among others
	say("mute")
}

func say(format string, args ...any) {
	fmt.Printf("machine: %s\n", strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...)))
}

// readings says what can be read and done on a server that has come as far as joining. It is root.
func readings(b *boot) {
	for _, s := range settings {
		if _, err := os.Stat("/proc/sys/" + s.name); err == nil {
			say("setting %s %s", s.name, read("/proc/sys/"+s.name))
		}
	}
	for _, c := range closedKernel {
		say("kernel %s %s", c.path, read("/"+c.path))
	}
	buses, err := filepath.Glob("/sys/bus/*/drivers_autoprobe")
	say("buses %d %v", len(buses), err)
	for _, path := range buses {
		if read(path) != "0" {
			say("probes %s", path)
		}
	}
	say("watchdogs %s", strings.Join(b.dogs.names, "; "))
	say("warnings %q", b.told.all())
	say("swaps %s", read("/proc/swaps"))
	say("log %s", kernelLog("mem auto-init"))
	for name, try := range map[string]func() error{
		"module": func() error {
			return loadModule(firstModule())
		},
		"kexec": func() error {
			_, _, e := unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0)
			return failed(e)
		},
		"kexec-file": func() error {
			_, _, e := unix.Syscall6(unix.SYS_KEXEC_FILE_LOAD, 0, 0, 0, 0, 4, 0)
			return failed(e)
		},
		"hibernate": func() error { return os.WriteFile("/sys/power/state", []byte("disk"), 0) },
		"kcore":     func() error { _, err := os.Open("/proc/kcore"); return err },
		"mem": func() error {
			if err := unix.Mknod("/tmp/mem", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))); err != nil {
				return err
			}
			_, err := os.Open("/dev/mem")
			return err
		},
		"pstore": func() error {
			if err := mountAt("pstore", "/tmp/pstore"); err != nil {
				return err
			}
			defer unix.Unmount("/tmp/pstore", 0)
			return os.WriteFile("/tmp/pstore/x", []byte("x"), 0o600)
		},
		"efivars": func() error { return mountAt("efivarfs", "/tmp/efivars") },
		"nvme":    func() error { _, err := os.Stat("/sys/bus/pci/drivers/nvme"); return err },
		"modules-setting": func() error {
			return os.WriteFile("/proc/sys/kernel/modules_disabled", []byte("0"), 0)
		},
		"ptrace-setting": func() error { return os.WriteFile("/proc/sys/kernel/yama/ptrace_scope", []byte("0"), 0) },
		"kexec-setting":  func() error { return os.WriteFile("/proc/sys/kernel/kexec_load_disabled", []byte("0"), 0) },
		"bpf-setting":    func() error { return os.WriteFile("/proc/sys/kernel/unprivileged_bpf_disabled", []byte("0"), 0) },
		"ptrace-root":    ptraceChild,
	} {
		say("try %s %v", name, try())
	}
	for _, what := range []string{"dmesg", "bpf", "kallsyms", "userns", "perf"} {
		say("user %s %s", what, child(what, childUID))
	}
	// A service, started as services are.
	r, err := newReaper(false)
	if err != nil {
		say("reaper %v", err)
		return
	}
	p, err := r.start(spec{name: "x", path: "/init", args: []string{childArgument, "service"}})
	if err != nil {
		say("service %v", err)
		return
	}
	for len(p.done) == 0 {
		r.reap()
		time.Sleep(10 * time.Millisecond)
	}
	say("service %s", read("/tmp/service"))
	before, _ := filepath.Glob("/tmp/*")
	say("abort %s", child("abort", 0))
	after, _ := filepath.Glob("/tmp/*")
	say("cores %d", len(after)-len(before))
	began := time.Now()
	churn()
	say("churn %d ms", time.Since(began).Milliseconds())
}

func failed(e syscall.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

func firstModule() string {
	list, err := os.ReadFile(release.StubModulesPath)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(list), "\n")
	return first
}

func mountAt(kind, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unix.Mount(kind, dir, kind, quiet, "")
}

// kernelLog is the line of the kernel's log that holds text.
func kernelLog(text string) string {
	buf := make([]byte, 1<<18)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(buf[:n])) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return "no line"
}

// child runs this program again for one question, as a user.
func child(what string, uid uint32) string {
	cmd := exec.Command("/init", childArgument, what)
	cmd.Dir = "/tmp"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// ptraceChild attaches to a child of its own.
func ptraceChild() error {
	cmd := exec.Command("/init", childArgument, "sleep")
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	return unix.PtraceAttach(cmd.Process.Pid)
}

// machineChild answers one question and ends.
func machineChild(what string) {
	err := errors.New("allowed")
	fail := func(e error) {
		if e != nil {
			err = e
		}
	}
	switch what {
	case "dmesg":
		_, e := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 1<<16))
		fail(e)
	case "bpf":
		attr := [16]uint32{1, 4, 4, 1} // an array
		_, _, e := unix.Syscall(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		fail(failed(e))
	case "userns":
		cmd := exec.Command("/init", childArgument, "none")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		fail(cmd.Run())
	case "perf":
		_, e := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}, 0, -1, -1, 0)
		fail(e)
	case "kallsyms":
		line, _, _ := strings.Cut(read("/proc/kallsyms"), " ")
		if n, e := strconv.ParseUint(line, 16, 64); e == nil && n == 0 {
			fail(errors.New("hidden"))
		}
	case "service":
		var list []string
		for fd := range 3 {
			to, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			list = append(list, to)
		}
		var core unix.Rlimit
		fail(unix.Getrlimit(unix.RLIMIT_CORE, &core))
		os.WriteFile("/tmp/service", fmt.Appendf(nil, "%s core %d %d", strings.Join(list, " "), core.Cur, core.Max), 0o600)
	case "abort":
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
		signalDefault()
	case "sleep":
		time.Sleep(time.Minute)
	}
	fmt.Println(err)
	os.Exit(0)
}

// signalDefault ends the process by a signal whose end is a core dump; the runtime's own handling is taken off first.
func signalDefault() {
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGABRT), uintptr(unsafe.Pointer(&[4]uint64{})), 0, 8, 0, 0)
	syscall.RawSyscall(syscall.SYS_KILL, uintptr(os.Getpid()), uintptr(syscall.SIGABRT), 0)
}

// churn takes memory and gives it back, again and again.
func churn() {
	for range 40 {
		data, err := unix.Mmap(-1, 0, 32<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			say("churn: %v", err)
			return
		}
		for i := 0; i < len(data); i += 4096 {
			data[i] = 1
		}
		unix.Munmap(data)
	}
}

// swap makes a swap area in RAM and uses it, as nothing on a server does.
func swap() {
	fd, err := unix.MemfdCreate("swap", 0)
	if err != nil {
		say("swap %v", err)
		return
	}
	f := os.NewFile(uintptr(fd), "swap")
	header := swapHeader(1 << 20)
	if _, err := f.Write(header); err != nil {
		say("swap %v", err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		say("swap %v", err)
		return
	}
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	loop, lerr := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if errors.Join(err, lerr) != nil {
		say("swap %v %v", err, lerr)
		return
	}
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, fd); err != nil {
		say("swap %v", err)
	}
	path, _ := syscall.BytePtrFromString(loop.Name())
	_, _, e := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0)
	say("swap on %v", failed(e))
}

// swapHeader is an empty swap area: the kernel's union swap_header, version 1.
func swapHeader(size int) []byte {
	data := make([]byte, size)
	data[1024] = 1
	pages := size/4096 - 1
	data[1028], data[1029] = byte(pages), byte(pages>>8)
	copy(data[4096-10:], "SWAPSPACE2")
	return data
}
