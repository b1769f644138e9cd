package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RotateParts are the parts of Rotate.
var RotateParts = []string{"critical", "ansible", "thousand"}

// RotateOptions of Rotate.
type RotateOptions struct {
	Pairs int
	Only  []string
	Log   io.Writer
}

// Implementation constants: the work of each part.
const (
	rotateServers = 200
	rotateRegions = 10
	rotateFloor   = 80 // percent of each region: 4 of 20 may be out
	rotateWidth   = 40 // of the fleet: 4 of each region

	criticalDrain = 3 * time.Second
	criticalBoot  = 12 * time.Second
	criticalBake  = 5 * time.Second

	ansibleDrain = 200 * time.Millisecond
	ansibleBoot  = time.Second
	ansibleBake  = 500 * time.Millisecond

	thousandServers = 2000 // half of them at once
	thousandWidth   = 1000
	thousandDrain   = 5 * time.Second
	thousandBoot    = 30 * time.Second
	thousandBake    = 10 * time.Second
)

// Simulation is what one run of SimulateVerb does: simulated servers, and a controller that rotates all of them.
type Simulation struct {
	Servers, Regions, Floor, Width int
	Drain, Boot, Bake              time.Duration
}

// Ideal is the wall time of a schedule that loses nothing: as many rounds as the width takes, each as long as one server's work.
func (s Simulation) Ideal() time.Duration {
	return time.Duration((s.Servers+s.Width-1)/s.Width) * (s.Drain + s.Boot + s.Bake)
}

// Simulated is what it prints.
type Simulated struct {
	Seconds float64 `json:"seconds"` // of the run, from its plan to its end
	CPU     float64 `json:"cpu"`     // of the whole process in that time: controller, store and the simulated servers
	Rebuilt int     `json:"rebuilt"`
	Most    int     `json:"most"` // servers out at once
}

// Args are the arguments of SimulateVerb.
func (s Simulation) Args() []string {
	return append(slices.Clone(strings.Fields(SimulateVerb)), "--servers", strconv.Itoa(s.Servers), "--regions", strconv.Itoa(s.Regions), "--floor", strconv.Itoa(s.Floor), "--width", strconv.Itoa(s.Width),
		"--drain", s.Drain.String(), "--boot", s.Boot.String(), "--bake", s.Bake.String())
}

// SimulateVerb is the verb of testenv that runs a Simulation in a process of its own.
const SimulateVerb = "part rotation"

// Rotate measures rotations of simulated servers.
func Rotate(ctx context.Context, o RotateOptions) (Report, error) {
	report := Report{Bench: "rotate"}
	exe, err := os.Executable()
	if err != nil {
		return report, err
	}
	b := rotateBench{exe: exe, log: o.Log}
	for _, part := range []struct {
		name string
		run  func(context.Context, int) ([]Result, error)
	}{{"critical", b.critical}, {"ansible", b.ansible}, {"thousand", b.thousand}} {
		if !slices.Contains(o.Only, part.name) {
			continue
		}
		results, err := part.run(ctx, o.Pairs)
		report.Results = append(report.Results, results...)
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

type rotateBench struct {
	exe string
	log io.Writer
}

// ours runs a simulation.
func (b rotateBench) ours(ctx context.Context, s Simulation) (r Simulated, err error) {
	cmd := exec.CommandContext(ctx, b.exe, s.Args()...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("rotating simulated servers: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return r, err
	}
	if r.Rebuilt != s.Servers || r.Most > s.Width {
		return r, fmt.Errorf("%d of %d servers were rebuilt, %d at once: want %d at most", r.Rebuilt, s.Servers, r.Most, s.Width)
	}
	fmt.Fprintf(b.log, "testenv: bench rotate: %d servers in %.1f s, ideal %.1f s, %.2f CPU-seconds, %d out at most\n", s.Servers, r.Seconds, s.Ideal().Seconds(), r.CPU, r.Most)
	return r, nil
}

func (b rotateBench) critical(ctx context.Context, pairs int) ([]Result, error) {
	s := Simulation{rotateServers, rotateRegions, rotateFloor, rotateWidth, criticalDrain, criticalBoot, criticalBake}
	var wall, ratio []float64
	for range pairs {
		r, err := b.ours(ctx, s)
		if err != nil {
			return nil, err
		}
		wall, ratio = append(wall, r.Seconds), append(ratio, s.Ideal().Seconds()/r.Seconds)
	}
	return []Result{{Name: "critical_path", Unit: "s", Ours: median(wall), Peer: "ideal", Theirs: s.Ideal().Seconds(), Ratio: median(ratio)}}, nil
}

func (b rotateBench) thousand(ctx context.Context, _ int) ([]Result, error) {
	s := Simulation{thousandServers, rotateRegions, 50, thousandWidth, thousandDrain, thousandBoot, thousandBake}
	r, err := b.ours(ctx, s)
	if err != nil {
		return nil, err
	}
	return []Result{{Name: "rotations_1000_cores", Unit: "cores", Ours: r.CPU / r.Seconds},
		{Name: "rotations_1000_at_once", Unit: "servers out at most", Ours: float64(r.Most)}}, nil
}

// playbook is a rolling rebuild as Ansible's users write it, with no work but the waiting: batches of the width that the floors allow, and in each
// batch one step after another for all of its servers. The commands are /bin/sleep and /bin/true, so what is counted is Ansible's own.
const playbook = `- hosts: servers
  gather_facts: false
  serial: %d
  any_errors_fatal: true
  tasks:
    - {name: drain, command: "sleep %.3f", changed_when: true}
    - {name: power off, command: "true"}
    - {name: read back as off, command: "true", changed_when: false}
    - {name: power on, command: "true"}
    - {name: wait until it has booted, command: "sleep %.3f", changed_when: false}
    - {name: probe, command: "true", changed_when: false}
    - {name: bake, command: "sleep %.3f", changed_when: false}
    - {name: serve, command: "true"}
`

// ansibleConfig is set for speed: no facts, no keys, modules piped into the interpreter, as many forks as the batch is wide.
const ansibleConfig = `[defaults]
forks = %d
gathering = explicit
host_key_checking = false
retry_files_enabled = false
stdout_callback = minimal
display_ok_hosts = false
interpreter_python = /usr/bin/python3
[connection]
pipelining = true
`

func (b rotateBench) ansible(ctx context.Context, pairs int) ([]Result, error) {
	s := Simulation{rotateServers, rotateRegions, rotateFloor, rotateWidth, ansibleDrain, ansibleBoot, ansibleBake}
	dir, err := os.MkdirTemp("", "mayfly-ansible-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var hosts strings.Builder
	hosts.WriteString("[servers]\n")
	// In Ansible's order the first batch has the same number of each region, as ours has.
	for i := range s.Servers {
		fmt.Fprintf(&hosts, "r%02d-%04d ansible_connection=local\n", i%s.Regions, i/s.Regions)
	}
	for name, text := range map[string]string{
		"hosts":       hosts.String(),
		"ansible.cfg": fmt.Sprintf(ansibleConfig, s.Width),
		"rotate.yml":  fmt.Sprintf(playbook, s.Width, s.Drain.Seconds(), s.Boot.Seconds(), s.Bake.Seconds()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	var wall, cpu, theirWall, theirCPU []float64
	for range pairs {
		r, err := b.ours(ctx, s)
		if err != nil {
			return nil, err
		}
		wall, cpu = append(wall, r.Seconds), append(cpu, r.CPU)
		w, c, err := b.play(ctx, dir, s)
		if err != nil {
			return nil, err
		}
		theirWall, theirCPU = append(theirWall, w), append(theirCPU, c)
	}
	return []Result{paired("ansible_wall", "s", "ansible-playbook", wall, theirWall, true),
		paired("ansible_cpu", "CPU-s", "ansible-playbook", cpu, theirCPU, true)}, nil
}

// play runs the play once.
func (b rotateBench) play(ctx context.Context, dir string, s Simulation) (seconds, cpu float64, err error) {
	cmd := exec.CommandContext(ctx, "ansible-playbook", "-i", "hosts", "rotate.yml")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ANSIBLE_CONFIG="+filepath.Join(dir, "ansible.cfg"), "ANSIBLE_LOCAL_TEMP="+filepath.Join(dir, "tmp"), "ANSIBLE_REMOTE_TEMP="+filepath.Join(dir, "tmp"), "HOME="+dir, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err = cmd.Run()
	seconds = time.Since(began).Seconds()
	if err != nil {
		said := out.Bytes()
		return 0, 0, fmt.Errorf("ansible-playbook: %w: %s", err, bytes.TrimSpace(said[max(0, len(said)-2000):]))
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage) // with its children, which it waits for
	if !ok {
		return 0, 0, errors.New("no resource usage of ansible-playbook")
	}
	cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	fmt.Fprintf(b.log, "testenv: bench rotate: ansible-playbook: %d servers in %.1f s, %.2f CPU-seconds\n", s.Servers, seconds, cpu)
	return seconds, cpu, nil
}
