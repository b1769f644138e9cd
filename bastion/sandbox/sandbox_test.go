package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// confinement is what a child of the test is told: by which rules it confines itself and what it then tries.
type confinement struct {
	Rules   Rules
	Try     string
	Dir     string // may be written
	Outside string // may not
	Port    uint16
	Closed  uint16 // a port that listens and is not in the rules
}

const confinementVariable = "MAYFLY_SANDBOX_TEST"

func TestMain(m *testing.M) {
	if text := os.Getenv(confinementVariable); text != "" {
		os.Exit(confinedMain(text))
	}
	os.Exit(m.Run())
}

func confinedMain(text string) int {
	var c confinement
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Println(err)
		return 2
	}
	// Threads that exist before are confined as well: one waits here until it is asked.
	ask, answer := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread()
		for f := range ask {
			answer <- f()
		}
	}()
	ask <- func() error { return nil }
	<-answer
	if _, err := Apply(c.Rules); err != nil {
		fmt.Println("apply:", err)
		return 2
	}
	try, ok := tries[c.Try]
	if !ok {
		fmt.Println("no such try:", c.Try)
		return 2
	}
	for _, err := range []error{try.run(c), onThread(ask, answer, func() error { return try.run(c) })} {
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Println("done")
		case errors.As(err, &errno):
			fmt.Println(unix.ErrnoName(errno))
		default:
			fmt.Println(err)
		}
	}
	return 0
}

func onThread(ask chan<- func() error, answer <-chan error, f func() error) error {
	ask <- f
	return <-answer
}

// try is one thing that a confined process tries, and what must come of it.
type try struct {
	want     string // "done", an errno, or "killed"
	landlock int    // the version that this needs; 0 needs none
	run      func(c confinement) error
}

func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

func dialing(port func(confinement) uint16) func(confinement) error {
	return func(c confinement) error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port(c)).String(), 5*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

func opening(path func(confinement) string, flags int) func(confinement) error {
	return func(c confinement) error {
		f, err := os.OpenFile(path(c), flags, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	}
}

func raw(number uintptr, args ...uintptr) func(confinement) error {
	return func(confinement) error { return call(number, args...) }
}

var tries = map[string]try{
	// what the bastion does
	"read a granted file":   {"done", 0, opening(func(c confinement) string { return filepath.Join(c.Rules.Read[0], "granted") }, os.O_RDONLY)},
	"list granted files":    {"done", 0, func(c confinement) error { _, err := os.ReadDir(c.Rules.Read[0]); return err }},
	"write, rename, fsync":  {"done", 0, writeDurably},
	"lock a file":           {"done", 0, lockFile},
	"connect where granted": {"done", 0, dialing(func(c confinement) uint16 { return c.Port })},
	"connect from an address": {"done", 0, func(c confinement) error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
		conn, err := d.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.Port).String())
		if err != nil {
			return err
		}
		return conn.Close()
	}},
	"list addresses":  {"done", 0, func(confinement) error { _, err := net.InterfaceAddrs(); return err }},
	"many goroutines": {"done", 0, threads},
	"collect garbage": {"done", 0, func(confinement) error {
		for range 20 {
			_ = make([]byte, 64<<20)
			runtime.GC()
		}
		return nil
	}},

	"status of threads": {"done", 0, threadStatus},
	"filter a socket":   {"done", 0, func(confinement) error { return filterSomething() }},

	// files
	"read the password hashes":  {"EACCES", 2, opening(func(confinement) string { return "/etc/shadow" }, os.O_RDONLY)},
	"read a file outside":       {"EACCES", 2, opening(func(c confinement) string { return filepath.Join(c.Outside, "secret") }, os.O_RDONLY)},
	"read a file outside by ..": {"EACCES", 2, opening(func(c confinement) string { return c.Dir + "/../outside/secret" }, os.O_RDONLY)},
	"read own memory":           {"EACCES", 2, opening(func(confinement) string { return "/proc/self/mem" }, os.O_RDONLY)},
	"write to own memory":       {"EACCES", 2, opening(func(confinement) string { return "/proc/self/mem" }, os.O_RDWR)},
	"write what may be read":    {"EACCES", 2, opening(func(c confinement) string { return filepath.Join(c.Rules.Read[0], "granted") }, os.O_WRONLY)},
	"truncate what may be read": {"EPERM", 0, func(c confinement) error { return os.Truncate(filepath.Join(c.Rules.Read[0], "granted"), 0) }},
	"make a file outside":       {"EACCES", 2, opening(func(c confinement) string { return filepath.Join(c.Outside, "new") }, os.O_WRONLY|os.O_CREATE)},
	"move a file out": {"EACCES", 2, func(c confinement) error {
		return os.Rename(filepath.Join(c.Dir, "mine"), filepath.Join(c.Outside, "mine"))
	}},
	"link a file in": {"EXDEV", 2, func(c confinement) error {
		return os.Link(filepath.Join(c.Outside, "secret"), filepath.Join(c.Dir, "stolen"))
	}},
	"make a symbolic link":      {"EPERM", 0, func(c confinement) error { return os.Symlink("/etc/shadow", filepath.Join(c.Dir, "link")) }},
	"make a device":             {"EPERM", 0, func(c confinement) error { return unix.Mknod(filepath.Join(c.Dir, "null"), unix.S_IFCHR|0o666, 0x103) }},
	"change an owner":           {"EPERM", 0, func(c confinement) error { return os.Chown(filepath.Join(c.Dir, "mine"), 1, 1) }},
	"open by handle":            {"killed", 0, raw(unix.SYS_OPEN_BY_HANDLE_AT)},
	"set an extended attribute": {"EPERM", 0, func(c confinement) error { return unix.Setxattr(c.Dir, "user.x", []byte("x"), 0) }},

	// the network
	"connect elsewhere":              {"EACCES", 4, dialing(func(c confinement) uint16 { return c.Closed })},
	"connect with the first segment": {"EPERM", 0, fastOpen},
	"connect by multipath TCP":       {"EPERM", 0, func(confinement) error { return socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) }},
	"listen":                         {"EPERM", 0, listening},
	"bind a port":                    {"EACCES", 4, binding},
	"send a datagram":                {"EPERM", 0, func(confinement) error { return socket(unix.AF_INET, unix.SOCK_DGRAM, 0) }},
	"open a raw socket":              {"EPERM", 0, func(confinement) error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
	"open a packet socket":           {"EPERM", 0, func(confinement) error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
	"open a unix socket":             {"EPERM", 0, func(confinement) error { return socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) }},
	"open the audit netlink":         {"EPERM", 0, func(confinement) error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT) }},
	"open a kernel crypto socket":    {"EPERM", 0, func(confinement) error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) }},
	"put TLS under TCP":              {"EPERM", 0, raw(unix.SYS_SETSOCKOPT, 0, unix.IPPROTO_TCP, tcpULP)},

	// programs and processes
	"execute":              {"killed", 0, func(confinement) error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
	"start a program":      {"killed", 0, func(confinement) error { _, err := syscall.ForkExec("/bin/true", []string{"true"}, nil); return err }},
	"fork":                 {"killed", 0, raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD))},
	"clone3":               {"ENOSYS", 0, raw(unix.SYS_CLONE3)},
	"trace":                {"killed", 0, func(confinement) error { return unix.PtraceAttach(os.Getppid()) }},
	"read other memory":    {"killed", 0, raw(unix.SYS_PROCESS_VM_READV)},
	"signal others":        {"EPERM", 0, func(confinement) error { return unix.Kill(os.Getppid(), 0) }},
	"signal by descriptor": {"ENOSYS", 0, raw(unix.SYS_PIDFD_OPEN, 1)},
	"steal a descriptor":   {"killed", 0, raw(unix.SYS_PIDFD_GETFD)},
	"make code": {"killed", 0, func(confinement) error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	}},
	"make memory code": {"killed", 0, func(confinement) error {
		m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		return unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
	}},
	"run code from memory": {"killed", 0, raw(unix.SYS_MEMFD_CREATE)},

	// users and privileges
	"become another user":   {"killed", 0, raw(unix.SYS_SETUID, 1)},
	"become another group":  {"killed", 0, raw(unix.SYS_SETGROUPS)},
	"take capabilities":     {"killed", 0, raw(unix.SYS_CAPSET)},
	"new user namespace":    {"killed", 0, raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)},
	"thread in a namespace": {"killed", 0, raw(unix.SYS_CLONE, unix.CLONE_THREAD|unix.CLONE_VM|unix.CLONE_SIGHAND|unix.CLONE_NEWNET)},
	"enter a namespace":     {"killed", 0, raw(unix.SYS_SETNS)},
	"mount":                 {"killed", 0, func(c confinement) error { return unix.Mount("none", c.Dir, "tmpfs", 0, "") }},
	"change root":           {"killed", 0, func(c confinement) error { return unix.Chroot(c.Dir) }},
	"raise a limit":         {"EPERM", 0, func(confinement) error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}) }},
	"become dumpable":       {"EPERM", 0, func(confinement) error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},

	// the kernel
	"io_uring":           {"killed", 0, raw(unix.SYS_IO_URING_SETUP, 1)},
	"load a BPF program": {"killed", 0, raw(unix.SYS_BPF)},
	"load a kernel":      {"killed", 0, raw(unix.SYS_KEXEC_LOAD)},
	"load a module":      {"killed", 0, raw(unix.SYS_FINIT_MODULE)},
	"userfaultfd":        {"killed", 0, raw(unix.SYS_USERFAULTFD)},
	"perf":               {"killed", 0, raw(unix.SYS_PERF_EVENT_OPEN)},
	"keys":               {"killed", 0, raw(unix.SYS_KEYCTL)},
	"set the clock":      {"killed", 0, raw(unix.SYS_CLOCK_SETTIME)},
	"device control":     {"EPERM", 0, raw(unix.SYS_IOCTL, 0, unix.TIOCSTI)},
	"an unknown call":    {"ENOSYS", 0, raw(4000)},
}

func writeDurably(c confinement) error {
	if err := os.MkdirAll(filepath.Join(c.Dir, "tile", "0"), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.Dir, "new")
	if err != nil {
		return err
	}
	_, err = f.WriteString("text")
	return errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), filepath.Join(c.Dir, "tile", "0", "renamed")),
		os.Link(filepath.Join(c.Dir, "tile", "0", "renamed"), f.Name()), os.RemoveAll(filepath.Join(c.Dir, "tile")), os.Remove(f.Name()))
}

func lockFile(c confinement) error {
	f, err := os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}), f.Close())
}

// threads makes the runtime start threads, as many goroutines in system calls do.
func threads(c confinement) error {
	done := make(chan error)
	for range 50 {
		go func() {
			runtime.LockOSThread()
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
			done <- opening(func(c confinement) string { return filepath.Join(c.Rules.Read[0], "granted") }, os.O_RDONLY)(c)
		}()
	}
	var all error
	for range 50 {
		all = errors.Join(all, <-done)
	}
	return all
}

func socket(domain, kind, protocol int) error {
	fd, err := unix.Socket(domain, kind, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func fastOpen(c confinement) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("text"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(c.Closed)})
}

func listening(confinement) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return l.Close()
}

func binding(c confinement) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(c.Port)})
}

// TestBreakOut confines a process of its own for each try, on the thread that applied the sandbox and on one that was there before.
func TestBreakOut(t *testing.T) {
	report := Probe(Rules{})
	t.Logf("this kernel enforces: %s", strings.Join(report.Enforced, ", "))
	if err := report.Require(); err != nil {
		t.Logf("AND IT DOES NOT ENFORCE: %v", err)
	}
	if auditArch == 0 || !seccompWorks() {
		t.Skip("this kernel has no filter of system calls: nothing of the break-out test would be true")
	}
	base := t.TempDir()
	dirs := map[string]string{}
	for _, name := range []string{"config", "state", "outside"} {
		dirs[name] = filepath.Join(base, name)
		if err := os.Mkdir(dirs[name], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"config/granted", "state/mine", "outside/secret"} {
		if err := os.WriteFile(filepath.Join(base, f), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	granted, closed := listenPort(t), listenPort(t)
	c := confinement{Rules: Rules{Read: []string{dirs["config"]}, Write: []string{dirs["state"]}, Connect: []uint16{granted}},
		Dir: dirs["state"], Outside: dirs["outside"], Port: granted, Closed: closed}
	for name, try := range tries {
		if name == "status of threads" || name == "filter a socket" {
			continue // by other rules, below
		}
		t.Run(name, func(t *testing.T) {
			if have := landlockVersion(); have < try.landlock {
				t.Skipf("NOT ENFORCED HERE: needs Landlock version %d, this kernel has %d", try.landlock, have)
			}
			c := c
			c.Try = name
			out, err := runConfined(t, c)
			var exit *exec.ExitError
			if try.want == "killed" {
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
					t.Fatalf("got %v, %q, want an end by SIGSYS", err, out)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := strings.Fields(out); !slices.Equal(got, []string{try.want, try.want}) {
				t.Errorf("got %q, want twice %q", got, try.want)
			}
		})
	}
}

func runConfined(t *testing.T, c confinement) (string, error) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), confinementVariable+"="+string(text))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if stderr.Len() > 0 {
		t.Log(stderr.String())
	}
	return string(out), err
}

func listenPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestEveryThread reads what the kernel says of each thread of a confined process.
func TestEveryThread(t *testing.T) {
	out, err := runConfined(t, confinement{Rules: Rules{Read: []string{"/proc"}}, Try: "status of threads"})
	if err != nil || strings.TrimSpace(out) != "done\ndone" {
		t.Errorf("got %v: %s", err, out)
	}
}

// TestFilter replaces the filter of a socket within the sandbox, also where the kernel wants a capability for that.
func TestFilter(t *testing.T) {
	if os.Geteuid() != 0 && filterSomething() != nil {
		t.Skip("this kernel lets no plain user filter a socket")
	}
	out, err := runConfined(t, confinement{Rules: Rules{Filter: true}, Try: "filter a socket"})
	if err != nil || strings.TrimSpace(out) != "done\ndone" {
		t.Errorf("got %v: %s", err, out)
	}
}

// confined is what /proc/PID/task/TID/status says of a thread that may nothing.
var confined = []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
	"NoNewPrivs:\t1", "Seccomp:\t2", "Seccomp_filters:\t1"}

func threadStatus(confinement) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	if len(tasks) < 2 {
		return fmt.Errorf("%d threads, so the test would prove little", len(tasks))
	}
	want := confined
	if os.Geteuid() == 0 {
		want = append(slices.Clone(want), "CapBnd:\t0000000000000000")
	}
	for _, task := range tasks {
		status, err := os.ReadFile(filepath.Join("/proc/self/task", task.Name(), "status"))
		if err != nil {
			return err
		}
		for _, line := range want {
			if !strings.Contains(string(status), line+"\n") {
				return fmt.Errorf("thread %s lacks %q:\n%s", task.Name(), line, status)
			}
		}
	}
	return nil
}

func TestApplyRefuses(t *testing.T) {
	for name, rules := range map[string]Rules{
		"a missing directory": {Write: []string{filepath.Join(t.TempDir(), "none")}},
		"all files":           {Read: []string{"/"}},
		"all files by a link": {Read: []string{"/proc/self/root"}},
	} {
		if _, err := rules.settled(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		landlock int
		seccomp  bool
		missing  []string
	}{
		{11, true, nil},
		{6, true, nil},
		{4, true, []string{"signals"}},
		{2, true, []string{"truncation", "TCP ports", "signals"}},
		{1, true, []string{"files", "truncation", "TCP ports", "signals"}},
		{0, false, []string{"files", "truncation", "TCP ports", "signals", "system calls"}},
	} {
		r := probe(tt.landlock, tt.seccomp, false)
		if len(r.Missing) != len(tt.missing) {
			t.Fatalf("landlock %d: missing %q, want %q", tt.landlock, r.Missing, tt.missing)
		}
		for i, m := range tt.missing {
			if !strings.Contains(r.Missing[i], m) {
				t.Errorf("landlock %d: missing %q, want %q", tt.landlock, r.Missing[i], m)
			}
		}
		if err := r.Require(); (err == nil) != (tt.missing == nil) || err != nil && !errors.Is(err, ErrIncomplete) {
			t.Errorf("landlock %d: got %v", tt.landlock, err)
		}
	}
}

// Each call is in one list only, and the program fits into the kernel's bound.
func TestCallLists(t *testing.T) {
	seen := map[uint32]bool{}
	var all []uint32
	for _, list := range [][]uint32{allowedCalls, allowedHere, fatalCalls, fatalHere} {
		all = append(all, list...)
	}
	for _, c := range checkedCalls(Rules{}, true, 1) {
		all = append(all, c.number)
	}
	for _, number := range all {
		if seen[number] {
			t.Errorf("call %d is in two lists", number)
		}
		seen[number] = true
	}
	program, err := callFilter(Rules{}, true, 1)
	if err != nil || len(program) > 4096 {
		t.Errorf("got %d instructions, %v", len(program), err)
	}
}
