package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sshdPath is where Debian has it; sshd wants to be started by its whole path.
const sshdPath = "/usr/sbin/sshd"

// sshServer is a server that can be started in the lab.
type sshServer interface {
	name() string
	prepare(ctx context.Context, l *sshLab, dir string, port int, lim limits) (args []string, err error)
	user(i int) string      // who logs in with the lab's key i
	target() string         // the target's name, as the server knows it
	keyExchanges() []string // what a client may offer
}

var (
	_ sshServer = ownServer{}
	_ sshServer = openSSHServer{}
	_ sshServer = bareServer{}
)

var (
	postQuantum = []string{"mlkem768x25519-sha256"}
	classical   = []string{"curve25519-sha256"}
)

// ownServer is `bastion serve`.
type ownServer struct{}

func (ownServer) name() string           { return "mayfly" }
func (ownServer) user(i int) string      { return engineer(i) }
func (ownServer) target() string         { return "se-1" }
func (ownServer) keyExchanges() []string { return postQuantum }

func (ownServer) prepare(_ context.Context, l *sshLab, dir string, port int, lim limits) ([]string, error) {
	config, err := l.writeFleet(dir, port, lim)
	return []string{l.path("bastion"), "serve", "--config", config}, err
}

// bareServer is BareServer in a process of its own.
type bareServer struct{}

func (bareServer) name() string           { return xcrypto }
func (bareServer) user(i int) string      { return engineer(i) }
func (bareServer) target() string         { return targetAddress }
func (bareServer) keyExchanges() []string { return postQuantum }

func (bareServer) prepare(_ context.Context, l *sshLab, _ string, port int, _ limits) ([]string, error) {
	return []string{l.path("testenv"), "part", "ssh", "--listen", fmt.Sprintf("%s:%d", serverAddress, port),
		"--host-key", l.hostFile, "--authorized", l.path("authorized_keys")}, nil
}

// openSSHServer is Debian's sshd with its limits opened, so that it is the server and not a limit that is measured.
type openSSHServer struct{}

func (openSSHServer) name() string           { return openSSH }
func (openSSHServer) user(int) string        { return "root" }
func (openSSHServer) target() string         { return targetAddress }
func (openSSHServer) keyExchanges() []string { return classical } // Debian 12's has no ML-KEM

func (openSSHServer) prepare(ctx context.Context, l *sshLab, dir string, port int, _ limits) ([]string, error) {
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "sshd_config")
	config := fmt.Sprintf(`ListenAddress %s:%d
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding local
MaxStartups 10000
UseDNS no
PrintMotd no
PrintLastLog no
`, serverAddress, port, l.hostFile, l.path("authorized_keys"))
	var errs []error
	for _, more := range []string{"PerSourcePenalties no\n", ""} { // known since 9.8
		if err := os.WriteFile(path, []byte(config+more), 0o644); err != nil {
			return nil, err
		}
		out, err := exec.CommandContext(ctx, sshdPath, "-t", "-f", path).CombinedOutput()
		if err == nil {
			return []string{sshdPath, "-D", "-f", path}, nil
		}
		errs = append(errs, fmt.Errorf("sshd -t: %w: %s", err, bytes.TrimSpace(out)))
	}
	return nil, errors.Join(errs...)
}

// running is a server that listens.
type running struct {
	sshServer
	lab    *sshLab
	dir    string
	port   int // no two that run at once have the same
	cmd    *exec.Cmd
	errors *os.File
}

// start starts a server and waits until it listens.
func (l *sshLab) start(ctx context.Context, s sshServer, lim limits) (_ *running, err error) {
	dir, err := os.MkdirTemp(l.dir, "run-")
	if err != nil {
		return nil, err
	}
	l.port++
	port := l.port
	args, err := s.prepare(ctx, l, dir, port, lim)
	if err != nil {
		return nil, err
	}
	r := &running{sshServer: s, lab: l, dir: dir, port: port, cmd: l.in(ctx, 1, args...)}
	if r.errors, err = os.Create(filepath.Join(dir, "stderr")); err != nil {
		return nil, err
	}
	r.cmd.Stderr = r.errors
	if err := r.cmd.Start(); err != nil {
		return nil, errors.Join(err, r.errors.Close())
	}
	limit := time.Now().Add(startLimit)
	for {
		conn, err := r.dial(ctx, netip.Addr{})
		if err == nil {
			return r, conn.Close()
		}
		if time.Now().After(limit) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("%s does not listen: %w", s.name(), err), r.end())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// end ends the server. What it said is in the error if it ended badly before.
func (r *running) end() error {
	said, _ := os.ReadFile(r.errors.Name())
	err := errors.Join(end(r.cmd), r.errors.Close())
	if state := r.cmd.ProcessState; err == nil && state != nil && state.Exited() && state.ExitCode() > 0 && state.ExitCode() < 128 && r.name() == "mayfly" {
		err = fmt.Errorf("%s ended with %d: %s", r.name(), state.ExitCode(), bytes.TrimSpace(said[:min(len(said), 2000)]))
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// readings is how often the processes are read until none has ended or begun between two readings.
const readings = 100

// cpu is the CPU-seconds of the server and of every process that it started. One that ends between the reading of its parent and its own
// would be in neither: so it is read until two readings in a row find the same processes.
func (r *running) cpu() (float64, error) {
	var last []int
	for range readings {
		total, tree, err := r.tree()
		if err != nil {
			return 0, err
		}
		if slices.Equal(tree, last) {
			return total, nil
		}
		last = tree
	}
	return 0, fmt.Errorf("the processes of %s changed between each two of %d readings", r.name(), readings)
}

// tree is one reading: the CPU-seconds of all, and which they are.
func (r *running) tree() (total float64, tree []int, err error) {
	children := map[int][]int{}
	used := map[int]float64{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		const parent, first, last = 1, 11, 14 // user, system, and the same of children that have ended
		if len(fields) <= last {
			return 0, nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
		}
		ppid, err := strconv.Atoi(fields[parent])
		if err != nil {
			return 0, nil, err
		}
		children[ppid] = append(children[ppid], pid)
		for _, field := range fields[first : last+1] {
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				return 0, nil, err
			}
			used[pid] += float64(n) / clockTicks
		}
	}
	tree = []int{r.cmd.Process.Pid}
	for i := 0; i < len(tree); i++ {
		total += used[tree[i]]
		tree = append(tree, children[tree[i]]...)
	}
	slices.Sort(tree)
	return total, tree, nil
}

// resident is the server's memory in KiB.
func (r *running) resident() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
		}
	}
	return 0, errors.New("no VmRSS")
}
