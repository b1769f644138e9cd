package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// clockTicks is USER_HZ, which Linux fixes at 100 for what it shows in /proc.
const clockTicks = 100

// link makes the namespaces and the veth pair between them.
func (b *tunnelBench) link(ctx context.Context) error {
	var steps [][]string
	for side := range 2 {
		steps = append(steps, []string{"netns", "add", b.node(side)}, []string{"-n", b.node(side), "link", "set", "lo", "up"})
	}
	steps = append(steps, []string{"-n", b.node(0), "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.node(1)})
	for side := range 2 {
		steps = append(steps,
			[]string{"-n", b.node(side), "addr", "add", outer(side) + "/24", "dev", "eth0"},
			[]string{"-n", b.node(side), "link", "set", "eth0", "up"})
	}
	return ip(ctx, steps...)
}

func (b *tunnelBench) unlink() error {
	var errs []error
	for side := range 2 {
		if _, err := os.Stat("/var/run/netns/" + b.node(side)); err == nil {
			errs = append(errs, ip(context.Background(), []string{"netns", "del", b.node(side)}))
		}
	}
	return errors.Join(errs...)
}

// address makes a side's tunnel interface usable.
func (b *tunnelBench) address(ctx context.Context, side int) error {
	return ip(ctx,
		[]string{"-n", b.node(side), "addr", "add", inner(side) + "/24", "dev", b.tun(side)},
		[]string{"-n", b.node(side), "link", "set", b.tun(side), "mtu", "1420", "up"})
}

func ip(ctx context.Context, steps ...[]string) error {
	for _, args := range steps {
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// iperf sends from side 0 to side 1 over so many TCP connections and returns the speed and the amount that arrived.
func (b *tunnelBench) iperf(ctx context.Context, streams int) (gbps, gbit float64, err error) {
	server := b.in(ctx, 1, "iperf3", "-s", "-1", "-B", inner(1), "--forceflush")
	stdout, err := server.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := server.Start(); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, end(server)) }()
	lines := bufio.NewScanner(stdout)
	for listening := false; !listening; {
		if !lines.Scan() {
			return 0, 0, errors.New("iperf3 -s ended before it listened")
		}
		listening = strings.Contains(lines.Text(), "Server listening")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
			continue // what the server prints is not used, but it must be able to print it
		}
	}()
	client := b.in(ctx, 0, "iperf3", "-c", inner(1), "-t", strconv.Itoa(b.seconds), "-P", strconv.Itoa(streams), "-J")
	out, err := client.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("iperf3: %w: %s", err, bytes.TrimSpace(out))
	}
	<-drained
	var result struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Bits  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return 0, 0, fmt.Errorf("reading iperf3's answer: %w", err)
	}
	if result.End.Received.Bytes == 0 {
		return 0, 0, errors.New("iperf3: nothing arrived")
	}
	return result.End.Received.Bits / 1e9, result.End.Received.Bytes * 8 / 1e9, nil
}

// cpu is the CPU-seconds that the processes have used, user and system.
func cpu(processes []*exec.Cmd) (seconds float64, err error) {
	for _, p := range processes {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil {
			return 0, err
		}
		// The second field is the name in brackets, which may hold anything.
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		const user, system = 11, 12
		if len(fields) <= system {
			return 0, fmt.Errorf("/proc/%d/stat has %d fields", p.Process.Pid, len(fields))
		}
		for _, i := range []int{user, system} {
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return 0, err
			}
			seconds += float64(n) / clockTicks
		}
	}
	return seconds, nil
}

// peak is the most memory that a process has held, in MB.
func peak(p *exec.Cmd) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", p.Process.Pid)
}
