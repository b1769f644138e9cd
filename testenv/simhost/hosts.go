package simhost

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/inventory"
	"mayfly/rebuild/power"
)

// Work is how long a host takes for its part of a rotation.
type Work struct {
	Drain time.Duration // until its last user has gone
	Boot  time.Duration // from power on to joined
}

// Fault is what goes wrong in a boot.
type Fault struct {
	Silent bool   // it never joins
	Reason string // it reports this and ends: "release_unsigned"
	Stays  bool   // it is said to be off, and stays on
	Never  bool   // it shows the boot ID of the life before: it was never off
}

// Hosts are the machines of a fleet.
type Hosts struct {
	work   func(server string, epoch uint64) Work
	joined chan event // what hosts have to say, to the feed

	mu       sync.Mutex // guards the rest
	machines map[string]*machine
	faults   map[string]func(epoch uint64) Fault
}

// machine is one server's hardware.
type machine struct {
	on     bool
	epoch  uint64
	ticket []byte
	bootID string
	last   string // the boot ID before that
	up     bool   // it has joined in this life
	drains bool   // it was told to
	stop   chan struct{}
	boots  map[uint64]int
	offs   int
}

// event is what a host says, some time after it was switched on or told to drain.
type event struct {
	server, bootID string
	epoch          uint64
	ticket         []byte
	drained        bool
	refused        string
}

// queue bounds what hosts have said and the feed has not written; a host waits then.
const queue = 1024

// New makes machines that are off.
func New(work func(server string, epoch uint64) Work) *Hosts {
	return &Hosts{work: work, joined: make(chan event, queue), machines: map[string]*machine{}, faults: map[string]func(uint64) Fault{}}
}

// Fail has a server's boots go wrong, as f says of each epoch; nil mends it.
func (h *Hosts) Fail(server string, f func(epoch uint64) Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[server] = f
}

func (h *Hosts) fault(server string, epoch uint64) Fault {
	if f := h.faults[server]; f != nil {
		return f(epoch)
	}
	return Fault{}
}

func (h *Hosts) of(server string) *machine {
	m := h.machines[server]
	if m == nil {
		m = &machine{boots: map[uint64]int{}}
		h.machines[server] = m
	}
	return m
}

// begin has a machine run already, and returns its boot ID.
func (h *Hosts) begin(server string, epoch uint64) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.of(server)
	m.on, m.epoch, m.up, m.bootID, m.stop = true, epoch, true, bootID(server, epoch), make(chan struct{})
	m.boots[epoch]++
	return m.bootID
}

func bootID(server string, epoch uint64) string { return fmt.Sprintf("%s-%d", server, epoch) }

// Boots says how often each life of a server was booted.
func (h *Hosts) Boots(server string) map[uint64]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.of(server).boots)
}

// On is how many machines run.
func (h *Hosts) On() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.machines {
		if m.on {
			n++
		}
	}
	return n
}

// Machine is a server's machine.
func (h *Hosts) Machine(s inventory.Server) (rotate.Machine, error) {
	return driver{func(_ context.Context, r request) (answer, error) { return h.do(r), nil }, s.Name}, nil
}

var _ rotate.Machines = (*Hosts)(nil)

// request is what a power driver asks of a machine, and answer what it gets: over a socket, a line of JSON each.
type request struct {
	Op     string `json:"op"` // "off", "on", "status"
	Server string `json:"server"`
	Epoch  uint64 `json:"epoch,omitempty"`
	Ticket []byte `json:"ticket,omitempty"`
}

type answer struct {
	On    bool   `json:"on"`
	Epoch uint64 `json:"epoch"`
	Err   string `json:"err,omitempty"`
}

func (h *Hosts) do(r request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.of(r.Server)
	switch r.Op {
	case "off":
		m.offs++
		if m.on && !h.fault(r.Server, m.epoch).Stays {
			close(m.stop)
			m.last = m.bootID
			m.on, m.up, m.drains, m.epoch, m.bootID = false, false, false, 0, ""
		}
	case "on":
		if m.on && m.epoch == r.Epoch {
			break
		}
		if m.on {
			return answer{Err: fmt.Sprintf("the machine is on, in life %d", m.epoch)}
		}
		if len(r.Ticket) == 0 {
			return answer{Err: "booted without a ticket"}
		}
		m.on, m.epoch, m.ticket, m.bootID, m.stop = true, r.Epoch, r.Ticket, bootID(r.Server, r.Epoch), make(chan struct{})
		m.boots[r.Epoch]++
		f := h.fault(r.Server, r.Epoch)
		if f.Never {
			m.bootID = m.last
		}
		if !f.Silent {
			go h.later(m.stop, h.work(r.Server, r.Epoch).Boot, event{server: r.Server, bootID: m.bootID, epoch: m.epoch, ticket: m.ticket, refused: f.Reason})
		}
	case "status":
	default:
		return answer{Err: fmt.Sprintf("there is no %q", r.Op)}
	}
	return answer{On: m.on, Epoch: m.epoch}
}

// drain tells the machine's life to drain, once.
func (h *Hosts) drain(server string, epoch uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.of(server)
	if !m.on || m.epoch != epoch || m.drains {
		return
	}
	m.drains = true
	go h.later(m.stop, h.work(server, epoch).Drain, event{server: server, epoch: epoch, drained: true})
}

// later says something after a while, unless the machine was switched off by then.
func (h *Hosts) later(stop <-chan struct{}, after time.Duration, e event) {
	wait := time.NewTimer(after)
	defer wait.Stop()
	select {
	case <-stop:
		return
	case <-wait.C:
	}
	select {
	case <-stop:
	case h.joined <- e:
	}
}

// alive are the lives that report health, with their boot IDs.
func (h *Hosts) alive() []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []event
	for name, m := range h.machines {
		if m.on && m.up {
			all = append(all, event{server: name, bootID: m.bootID, epoch: m.epoch})
		}
	}
	return all
}

// driver asks one machine, here or in another process.
type driver struct {
	ask    func(context.Context, request) (answer, error)
	server string
}

var _ power.Driver = driver{}

func (d driver) call(ctx context.Context, r request) (answer, error) {
	r.Server = d.server
	a, err := d.ask(ctx, r)
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	return a, err
}

func (d driver) Off(ctx context.Context) error {
	_, err := d.call(ctx, request{Op: "off"})
	return err
}

func (d driver) On(ctx context.Context, b power.Boot) error {
	_, err := d.call(ctx, request{Op: "on", Epoch: b.Epoch, Ticket: b.Ticket})
	return err
}

func (d driver) Status(ctx context.Context) (power.Status, error) {
	a, err := d.call(ctx, request{Op: "status"})
	return power.Status{On: a.On, Epoch: a.Epoch}, err
}

func (driver) SetBoot(context.Context, power.Boot) error { return nil }
func (driver) Joined(context.Context) error              { return nil }
func (d driver) Console(context.Context) ([]byte, error) {
	return []byte("simhost: the console of " + d.server + "\r\n"), nil
}
