package rotate

import (
	"context"
	"errors"
	"sync"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/rebuild/power"
)

// errKilled is the answer to everything that a process does after its end: nothing of it happens.
var errKilled = errors.New("test: this process is dead")

// errCut is the store's answer to a process that is cut off from it.
var errCut = errors.New("test: cut off from the store")

// process is one rotate as a test has it die, stop and be cut off.
type process struct {
	mu   sync.Mutex // guards the rest
	dead bool
	cut  bool
	wait chan struct{} // not nil while it is stopped
}

// enter is called before whatever the process does.
func (p *process) enter() error {
	for {
		p.mu.Lock()
		dead, cut, wait := p.dead, p.cut, p.wait
		p.mu.Unlock()
		switch {
		case dead:
			return errKilled
		case wait != nil:
			<-wait
		case cut:
			return errCut
		default:
			return nil
		}
	}
}

func (p *process) kill() { p.mu.Lock(); p.dead = true; p.mu.Unlock() }

// stop is SIGSTOP, and what it returns SIGCONT.
func (p *process) stop() func() {
	wait := make(chan struct{})
	p.mu.Lock()
	p.wait = wait
	p.mu.Unlock()
	return func() { p.mu.Lock(); p.wait = nil; p.mu.Unlock(); close(wait) }
}

func (p *process) cutOff(cut bool) { p.mu.Lock(); p.cut = cut; p.mu.Unlock() }

// through is a store as one process sees it.
type through struct {
	store.Store
	p *process
}

func gated[T any](p *process, do func() (T, error)) (T, error) {
	if err := p.enter(); err != nil {
		var none T
		return none, err
	}
	return do()
}

func (s through) do(f func() error) error {
	if err := s.p.enter(); err != nil {
		return err
	}
	return f()
}

func (s through) Fenced(c store.Claim) store.Store { return through{s.Store.Fenced(c), s.p} }

func (s through) Sync(ctx context.Context, f inventory.Fleet, now time.Time) error {
	return s.do(func() error { return s.Store.Sync(ctx, f, now) })
}

func (s through) Servers(ctx context.Context) ([]store.Server, error) {
	return gated(s.p, func() ([]store.Server, error) { return s.Store.Servers(ctx) })
}

func (s through) Server(ctx context.Context, name string) (store.Server, error) {
	return gated(s.p, func() (store.Server, error) { return s.Store.Server(ctx, name) })
}

func (s through) SetRelease(ctx context.Context, name string, epoch uint64, release string) error {
	return s.do(func() error { return s.Store.SetRelease(ctx, name, epoch, release) })
}

func (s through) Move(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time) error {
	return s.do(func() error { return s.Store.Move(ctx, name, epoch, from, to, cause, now) })
}

func (s through) MoveChecked(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time, check store.Check) error {
	return s.do(func() error { return s.Store.MoveChecked(ctx, name, epoch, from, to, cause, now, check) })
}

func (s through) BeginLife(ctx context.Context, name string, epoch uint64, from inventory.State, cause string, now time.Time, check store.Check) (uint64, error) {
	return gated(s.p, func() (uint64, error) { return s.Store.BeginLife(ctx, name, epoch, from, cause, now, check) })
}

func (s through) PutTicket(ctx context.Context, name string, epoch uint64, hash [32]byte, notAfter time.Time) error {
	return s.do(func() error { return s.Store.PutTicket(ctx, name, epoch, hash, notAfter) })
}

func (s through) OrderDrain(ctx context.Context, name string, epoch uint64, limit time.Duration) error {
	return s.do(func() error { return s.Store.OrderDrain(ctx, name, epoch, limit) })
}

func (s through) LastFailure(ctx context.Context, name string, epoch uint64) (reason, detail string, ok bool, err error) {
	if err := s.p.enter(); err != nil {
		return "", "", false, err
	}
	return s.Store.LastFailure(ctx, name, epoch)
}

func (s through) Claim(ctx context.Context, server, holder string, ttl time.Duration, now time.Time) (store.Claim, error) {
	return gated(s.p, func() (store.Claim, error) { return s.Store.Claim(ctx, server, holder, ttl, now) })
}

func (s through) Renew(ctx context.Context, c store.Claim, ttl time.Duration, now time.Time) (store.Claim, error) {
	return gated(s.p, func() (store.Claim, error) { return s.Store.Renew(ctx, c, ttl, now) })
}

func (s through) Release(ctx context.Context, c store.Claim) error {
	return s.do(func() error { return s.Store.Release(ctx, c) })
}

func (s through) Claims(ctx context.Context, now time.Time) ([]store.Claim, error) {
	return gated(s.p, func() ([]store.Claim, error) { return s.Store.Claims(ctx, now) })
}

func (s through) Record(ctx context.Context, e store.Entry) error {
	return s.do(func() error { return s.Store.Record(ctx, e) })
}

func (s through) Journal(ctx context.Context, server string) ([]store.Entry, error) {
	return gated(s.p, func() ([]store.Entry, error) { return s.Store.Journal(ctx, server) })
}

func (s through) BeginRun(ctx context.Context, plan []byte, now time.Time) (int64, error) {
	return gated(s.p, func() (int64, error) { return s.Store.BeginRun(ctx, plan, now) })
}

func (s through) OpenRun(ctx context.Context) (r store.Run, ok bool, err error) {
	err = s.do(func() error { r, ok, err = s.Store.OpenRun(ctx); return err })
	return r, ok, err
}

func (s through) EndRun(ctx context.Context, id int64, result string, now time.Time) error {
	return s.do(func() error { return s.Store.EndRun(ctx, id, result, now) })
}

func (s through) EndRotation(ctx context.Context, o store.Outcome) error {
	return s.do(func() error { return s.Store.EndRotation(ctx, o) })
}

// hands are the machines as one process reaches them. A process that is stopped is stopped before an effect, not within.
type hands struct {
	Machines
	p *process
}

func (h hands) Machine(s inventory.Server) (Machine, error) {
	m, err := h.Machines.Machine(s)
	return hand{m, h.p}, err
}

type hand struct {
	Machine
	p *process
}

func (h hand) alive() error {
	h.p.mu.Lock()
	defer h.p.mu.Unlock()
	if h.p.dead {
		return errKilled
	}
	return nil
}

func (h hand) Off(ctx context.Context) error {
	if err := h.alive(); err != nil {
		return err
	}
	return h.Machine.Off(ctx)
}

func (h hand) On(ctx context.Context, b power.Boot) error {
	if err := h.alive(); err != nil {
		return err
	}
	return h.Machine.On(ctx, b)
}
