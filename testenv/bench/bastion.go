package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Peers of the bastion's benchmark.
const (
	openSSH = "openssh"  // Debian's sshd
	xcrypto = "x/crypto" // a bare server on the library that ours uses: one key, no policy, no log
)

// Parts of the bastion's benchmark, in the order in which they run.
var BastionParts = []string{"handshakes", "forward", "idle", "halfopen"}

// BastionOptions say what to measure and how long. The zero value is the usual measurement.
type BastionOptions struct {
	Pairs int           // runs of each; at least MinPairs
	Only  []string      // of BastionParts; empty is all
	Log   io.Writer     // a line for each run; nil is none
	Limit time.Duration // of the whole; 0 is fifteen minutes

	// Of one run. 0 is the usual amount.
	Seconds  int           // of handshakes
	Bytes    int64         // through a forwarded connection, each way
	Idle     int           // connections
	HalfOpen int           // connections
	Settle   time.Duration // for a server to put itself in order, around idle

	// Profile, if set, is where CPU profiles by perf of the servers go.
	Profile string
}

// Usual amounts of one run.
const (
	usualSeconds  = 3
	usualBytes    = 1 << 30
	usualIdle     = 5000
	usualHalfOpen = 10000
	usualSettle   = 20 * time.Second
)

func (o *BastionOptions) fill() error {
	o.Pairs = max(o.Pairs, MinPairs)
	if len(o.Only) == 0 {
		o.Only = BastionParts
	}
	for _, name := range o.Only {
		if !slices.Contains(BastionParts, name) {
			return fmt.Errorf("no part %q: there are %q", name, BastionParts)
		}
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Limit == 0 {
		o.Limit = 15 * time.Minute
	}
	if o.Seconds == 0 {
		o.Seconds = usualSeconds
	}
	if o.Bytes == 0 {
		o.Bytes = usualBytes
	}
	if o.Idle == 0 {
		o.Idle = usualIdle
	}
	if o.HalfOpen == 0 {
		o.HalfOpen = usualHalfOpen
	}
	if o.Settle == 0 {
		o.Settle = usualSettle
	}
	return nil
}

// bastionBench is a lab with the three servers' programs and files in it.
type bastionBench struct {
	BastionOptions
	lab     *sshLab
	results []Result
}

// Bastion measures our bastion, policy and audit log on, against Debian's sshd and a bare x/crypto server: clients and a target in one
// network namespace, the server in another. It needs root, the go command inside the module, ip, ssh and sshd.
func Bastion(ctx context.Context, o BastionOptions) (r Report, err error) {
	if err := o.fill(); err != nil {
		return r, err
	}
	if os.Geteuid() != 0 {
		return r, errors.New("measuring the bastion: it needs root, to make network namespaces")
	}
	for _, tool := range []string{"go", "ip", "ssh", sshdPath} {
		if _, err := exec.LookPath(tool); err != nil {
			return r, fmt.Errorf("measuring the bastion: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "mayfly-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := build(ctx, dir, map[string]string{"bastion": "mayfly/bastion/cmd/bastion", "testenv": "mayfly/testenv"}); err != nil {
		return r, err
	}
	lab, err := newSSHLab(ctx, dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	b := bastionBench{BastionOptions: o, lab: lab}
	// A part that cannot be measured is an error, and the others are measured all the same.
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"handshakes", b.handshakes}, {"forward", b.forward}, {"idle", b.idle}, {"halfopen", b.halfOpen}} {
		if !slices.Contains(o.Only, part.name) {
			continue
		}
		if perr := part.run(ctx); perr != nil {
			err = errors.Join(err, fmt.Errorf("measuring %s: %w", part.name, perr))
		}
	}
	return Report{Bench: "bastion", Results: b.results}, err
}

// build builds programs of the module, or of its dependencies, into dir.
func build(ctx context.Context, dir string, programs map[string]string) error {
	for name, pkg := range programs {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// alternate runs a measurement of each server in every pair, so that none always comes first.
func (b *bastionBench) alternate(ctx context.Context, what string, servers []sshServer, run func(context.Context, *running) error) error {
	for i := range b.Pairs {
		order := slices.Clone(servers)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			if err := b.once(ctx, s, limits{}, run); err != nil {
				return fmt.Errorf("%s, pair %d: %w", s.name(), i+1, err)
			}
		}
		fmt.Fprintf(b.Log, "%s: pair %d of %d done\n", what, i+1, b.Pairs)
	}
	return nil
}

// once starts a server, measures and ends it.
func (b *bastionBench) once(ctx context.Context, s sshServer, l limits, run func(context.Context, *running) error) (err error) {
	server, err := b.lab.start(ctx, s, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	return run(ctx, server)
}
