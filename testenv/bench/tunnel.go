package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Peer of the tunnel's benchmark.
const wireguardGo = "wireguard-go"

// TunnelOptions say how long to measure. The zero value is the usual measurement.
type TunnelOptions struct {
	Pairs   int           // runs of each; at least MinPairs
	Seconds int           // of each transfer; 0 is 5
	Log     io.Writer     // a line for each run; nil is none
	Limit   time.Duration // of the whole; 0 is ten minutes
}

// MinPairs is the least number of paired runs.
const MinPairs = 3

// sample is what one run of one data plane gave.
type sample struct {
	tcp1, tcp8 float64 // Gb/s
	cpu        float64 // CPU-seconds of both ends for each Gbit of tcp1
	rss        float64 // MB, the peak of the end that needed more
}

// Tunnel measures our data plane against stock wireguard-go, built from its Go module: two network namespaces joined by a veth pair,
// one tunnel end in each, iperf3 through it. It needs root, the go command inside the module, ip and iperf3.
func Tunnel(ctx context.Context, o TunnelOptions) (r Report, err error) {
	if o.Seconds == 0 {
		o.Seconds = 5
	}
	if o.Limit == 0 {
		o.Limit = 10 * time.Minute
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.Pairs = max(o.Pairs, MinPairs)
	if os.Geteuid() != 0 {
		return r, errors.New("measuring the tunnel: it needs root, to make network namespaces")
	}
	for _, tool := range []string{"go", "ip", "iperf3"} {
		if _, err := exec.LookPath(tool); err != nil {
			return r, fmt.Errorf("measuring the tunnel: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "mayfly-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := tunnelBench{dir: dir, seconds: o.Seconds, tag: fmt.Sprintf("mfb%x", os.Getpid())}
	if err := b.build(ctx); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.unlink()) }()
	if err := b.link(ctx); err != nil {
		return r, err
	}
	ours, theirs := make([]sample, o.Pairs), make([]sample, o.Pairs)
	for i := range o.Pairs {
		order := []plane{&ownPlane{b: &b}, &stockPlane{b: &b}}
		if i%2 == 1 { // so that neither always comes second
			order[0], order[1] = order[1], order[0]
		}
		for _, p := range order {
			s, err := b.run(ctx, p)
			if err != nil {
				return r, fmt.Errorf("measuring %s, pair %d: %w", p.name(), i+1, err)
			}
			if p.name() == wireguardGo {
				theirs[i] = s
			} else {
				ours[i] = s
			}
			fmt.Fprintf(o.Log, "pair %d of %d, %s: TCP x1 %.2f Gb/s, x8 %.2f Gb/s, %.3f CPU-s/Gbit, %.0f MB\n",
				i+1, o.Pairs, p.name(), s.tcp1, s.tcp8, s.cpu, s.rss)
		}
	}
	pick := func(from []sample, get func(sample) float64) (values []float64) {
		for _, s := range from {
			values = append(values, get(s))
		}
		return values
	}
	both := func(name, unit string, cost bool, get func(sample) float64) Result {
		return paired(name, unit, wireguardGo, pick(ours, get), pick(theirs, get), cost)
	}
	return Report{Bench: "tunnel", Results: []Result{
		both("chacha_tcp1", "Gb/s", false, func(s sample) float64 { return s.tcp1 }),
		both("chacha_tcp8", "Gb/s", false, func(s sample) float64 { return s.tcp8 }),
		both("chacha_cpu", "CPU-s/Gbit", true, func(s sample) float64 { return s.cpu }),
		both("rss_mb", "MB", true, func(s sample) float64 { return s.rss }),
	}}, nil
}

// tunnelBench is the two namespaces and the two programs.
type tunnelBench struct {
	dir     string
	tag     string // of everything that is named in the kernel
	seconds int
}

func (b *tunnelBench) build(ctx context.Context) error {
	return build(ctx, b.dir, map[string]string{"tunnel": "mayfly/tunnel/cmd/tunnel", "wireguard-go": "golang.zx2c4.com/wireguard"})
}

// run measures one data plane once, from start to end.
func (b *tunnelBench) run(ctx context.Context, p plane) (s sample, err error) {
	var ends [2]*exec.Cmd
	defer func() {
		for _, e := range ends {
			if e != nil {
				err = errors.Join(err, end(e))
			}
		}
	}()
	keys, err := newPair()
	if err != nil {
		return s, err
	}
	for side := range ends {
		if ends[side], err = p.start(ctx, side, keys); err != nil {
			return s, err
		}
	}
	for side := range ends {
		if err := b.address(ctx, side); err != nil {
			return s, err
		}
	}
	before, err := cpu(ends[:])
	if err != nil {
		return s, err
	}
	var gbit float64
	if s.tcp1, gbit, err = b.iperf(ctx, 1); err != nil {
		return s, err
	}
	after, err := cpu(ends[:])
	if err != nil {
		return s, err
	}
	s.cpu = (after - before) / gbit
	if s.tcp8, _, err = b.iperf(ctx, 8); err != nil {
		return s, err
	}
	for _, e := range ends {
		mb, err := peak(e)
		if err != nil {
			return s, err
		}
		s.rss = max(s.rss, mb)
	}
	return s, nil
}
