// Package host runs plugins: it loads the files that the policy pins, starts each as a process of its own, asks it, and starts it again
// when it ends. It is linked by bastion/cmd/bastion-plugins alone, so that the process that strangers reach has none of go-plugin and gRPC.
//
// Every process of it, its own included, runs as the plugins' user, who owns none of the plugins' files. It trusts the bastion at the other
// end of its socket, and of a plugin nothing: each wait is bounded, and what is no answer denies.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"mayfly/policies/plugin"
	"mayfly/policies/plugin/sdk"
)

// Implementation constants.
const (
	startLimit = 10 * time.Second
	firstPause = 100 * time.Millisecond // before a plugin is started again; doubled each time it does not last
	longPause  = 30 * time.Second
	lasting    = time.Minute // a plugin that lasted so long begins at the first pause again
	lookEvery  = 50 * time.Millisecond
	maxPlugins = 8
)

// Host is the plugins that run. Close ends them.
type Host struct {
	dir     string
	sockets string // private to this user
	owners  []uint32
	log     *slog.Logger

	mu      sync.Mutex
	running map[plugin.Pin]*process
	closed  bool
	living  sync.WaitGroup
}

var _ plugin.Decider = (*Host)(nil)

// New makes a host of the plugins in dir, whose files belong to one of owners.
func New(dir string, owners []uint32, log *slog.Logger) (*Host, error) {
	if err := CheckDirectory(dir, owners); err != nil {
		return nil, err
	}
	sockets, err := os.MkdirTemp("", "mayfly-plugins-") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("making a directory for sockets: %w", err)
	}
	return &Host{dir: dir, sockets: sockets, owners: owners, log: log, running: map[plugin.Pin]*process{}}, nil
}

// Close ends every plugin and waits for it.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.Pin(nil)
	h.living.Wait()
	return os.RemoveAll(h.sockets)
}

// Pin starts what is new, ends what is no longer pinned, and leaves the rest alone.
func (h *Host) Pin(pins []plugin.Pin) {
	wanted := map[plugin.Pin]bool{}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		for _, p := range pins[:min(len(pins), maxPlugins)] {
			wanted[p] = true
			if h.running[p] == nil {
				h.running[p] = h.start(p)
			}
		}
	}
	for p, one := range h.running {
		if !wanted[p] {
			one.stop()
			delete(h.running, p)
		}
	}
}

// Decide asks each of the plugins in turn, until one denies.
func (h *Host) Decide(ctx context.Context, pins []plugin.Pin, q plugin.Request) plugin.Verdict {
	for _, p := range pins {
		h.mu.Lock()
		one := h.running[p]
		h.mu.Unlock()
		if v := one.decide(ctx, p, q); v.Outcome != plugin.Allowed {
			return v
		}
	}
	return plugin.Verdict{Outcome: plugin.Allowed}
}

// process is one plugin, as it comes and goes.
type process struct {
	stop context.CancelFunc
	life atomic.Pointer[life] // nil: it does not run
}

type life struct {
	client sdk.Client
	end    func()
}

func (h *Host) start(p plugin.Pin) *process {
	ctx, cancel := context.WithCancel(context.Background())
	one := &process{stop: cancel}
	h.living.Go(func() { h.keep(ctx, p, one) })
	return one
}

// keep runs a plugin again and again until ctx ends, ever more slowly if it does not last.
func (h *Host) keep(ctx context.Context, p plugin.Pin, one *process) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := h.run(ctx, p, one)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) >= lasting {
			pause = firstPause
		}
		h.log.Error("a plugin does not run: what it decides is denied", "plugin", p.Name, "again", pause, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		pause = min(2*pause, longPause)
	}
}

// run is one life of a plugin.
func (h *Host) run(ctx context.Context, p plugin.Pin, one *process) (err error) {
	program, err := Load(h.dir, p, h.owners)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, program.Close()) }()
	started, err := Start(program, Kind{Handshake: sdk.Handshake, Name: sdk.Name, Plugin: sdk.Decider{}}, p.Name, h.sockets, nil)
	if started != nil {
		defer func() { err = errors.Join(err, started.End()) }()
	}
	defer one.life.Store(nil)
	if err != nil {
		return err
	}
	asked, ok := started.Client.(sdk.Client)
	if !ok {
		return errors.New("starting: internal error: another kind of client")
	}
	living, end := context.WithCancel(ctx)
	defer end()
	one.life.Store(&life{asked, end})
	h.log.Info("a plugin runs", "plugin", p.Name, "sha256", p.SHA256)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-living.Done():
			return errors.New("it was ended")
		case <-look.C:
			if started.Exited() {
				return errors.New("it ended")
			}
		}
	}
}

// decide asks one plugin. One that answers nonsense is ended, and starts anew.
func (one *process) decide(ctx context.Context, p plugin.Pin, q plugin.Request) plugin.Verdict {
	v := plugin.Verdict{Outcome: plugin.Failed, Plugin: p.Name}
	if one == nil {
		v.Text = "it is not pinned"
		return v
	}
	now := one.life.Load()
	if now == nil {
		v.Text = "it does not run"
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, p.Deadline)
	defer cancel()
	a, err := now.client.Decide(ctx, q)
	switch {
	case err != nil && (ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded): // its side has a clock of its own
		v.Outcome, v.Text = plugin.Late, "no answer within "+p.Deadline.String()
	case err != nil:
		v.Text = clip(err.Error())
		now.end()
	case a.Deny:
		v.Outcome, v.Text = plugin.Denied, a.Text
	default:
		v.Outcome = plugin.Allowed
	}
	return v
}

func clip(text string) string { return text[:min(len(text), plugin.MaxText)] }
