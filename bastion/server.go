package bastion

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mayfly/bastion/listen"
	"mayfly/bastion/recording"
	"mayfly/bastion/sandbox"
	"mayfly/internal/audit"
	"mayfly/policies"
	"mayfly/policies/plugin"
)

// Implementation constants of the accept loop and of stopping.
const (
	acceptBackoff = 50 * time.Millisecond // when the machine is out of descriptors
	stopLimit     = 15 * time.Second      // for sessions to end when the bastion stops
)

// Server is a bastion.
type Server struct {
	config   Config
	log      *slog.Logger
	audit    auditLog
	listener *listen.Listener
	loaded   stamp
	dial     func(ctx context.Context, address netip.AddrPort) (halfCloser, error)

	ownAddresses func() ([]netip.Addr, error)

	applySandbox func(sandbox.Rules) (sandbox.Report, error) // nil: none, as in tests within one process
	confined     *confinement                                // nil: not

	plugins   *plugin.Relay    // nil: none are configured
	repinned  chan struct{}    // holds one when live sessions are to be asked about again
	session   *sessionMode     // nil: none
	recording recording.Bounds // of each; what is 0 is the package's own

	ruling    atomic.Pointer[ruling]
	startups  startups
	sessions  sessions
	refusals  refusals
	strangers strangers
	penalties penalties
	drain     drain
	cutNow    <-chan os.Signal // ends a drain; nil: nothing does
	inherited *os.File         // the listening socket, if the service manager made it
	began     time.Time
	control   *controlSocket // nil: none
	metrics   *metrics       // nil, as in some tests: nothing is counted
	alerts    *alerts        // nil: nobody is told
	repeated  repeated
	closings  closings
	auditIll  bool          // owned by watch
	tuning    *tuning       // nil: the runtime is left alone
	drops     atomic.Uint32 // last count read; changed by watch

	taking     sync.Mutex                    // held by who replaces the ruling
	statements statementDir                  // owned by watchStatements
	open       map[string]policies.Opening   // likewise: break-glass identities that were told of as open
	events     func(kind string, fields any) // for alerts; nil: nobody listens
}

// Serve runs a bastion until ctx ends, and then lets who is in go on as long as the configuration says. It calls ready once it
// listens: on the inherited socket, if there is one, and else on its own.
func Serve(ctx context.Context, c Config, log *slog.Logger, signals Signals, inherited *os.File, ready func(address net.Addr, policy uint64)) (err error) {
	if err := c.checkSandbox(); err != nil {
		return err
	}
	// What is refused must not leave an empty log, so everything is loaded before; and once more under the log's lock, since
	// another bastion may have had it, and a newer policy in force, until then.
	before, err := newServer(c, log, nil, time.Now())
	if err != nil {
		return err
	}
	var s *Server
	begun := make(chan struct{}) // s is what it will be
	records, err := openAudit(c, before.ruling.Load().bundle.Fleet, func(r audit.Rejection) {
		if <-begun; s != nil {
			s.witnessRejected(r)
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	s, err = newServer(c, log, records, time.Now())
	close(begun)
	if err != nil {
		return err
	}
	first := s.ruling.Load().bundle
	relay, endPlugins, err := startPlugins(c.Plugin, first.Inventory.Test, log)
	if err != nil {
		return err
	}
	defer endPlugins()
	if s.alerts, err = startAlerts(c, s.metrics, log); err != nil {
		return err
	}
	defer s.alerts.end()
	s.plugins = relay
	s.pinPlugins(first.Policy)
	s.applySandbox, s.cutNow, s.inherited = sandbox.Apply, signals.Cut, inherited
	s.tuning = newTuning()
	return s.serve(ctx, signals.Reload, ready)
}

// newServer loads everything that a bastion serves by.
func newServer(c Config, log *slog.Logger, records auditLog, now time.Time) (*Server, error) {
	s := &Server{config: c, log: log, audit: records, dial: dialingFrom(c.Listen.Addr()), ownAddresses: machineAddresses, loaded: c.stamp(),
		began: now, drain: drain{asked: make(chan time.Duration, 1)}, repinned: make(chan struct{}, 1)}
	s.metrics = newMetrics(s)
	if records != nil {
		s.audit = &watchedLog{auditLog: records, metrics: s.metrics, status: AuditStatus{Works: true}}
	}
	seen, err := seenVersion(c)
	if err != nil {
		return nil, err
	}
	first, err := load(c, seen, now)
	if err != nil {
		return nil, err
	}
	if s.session, err = loadSessions(c); err != nil {
		return nil, err
	}
	s.ruling.Store(first)
	s.statements = statementDir{path: c.Statements, trust: c.Trust, chain: c.TrustChain}
	if c.Statements != "" {
		if err := checkStatements(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) serve(ctx context.Context, reload <-chan os.Signal, ready func(address net.Addr, policy uint64)) (err error) {
	first := s.ruling.Load()
	if s.inherited != nil {
		s.listener, err = listen.TakeOver(s.inherited, s.config.Listen, first.filter)
		s.inherited.Close()
	} else {
		s.listener, err = listen.On(ctx, s.config.Listen, first.filter)
	}
	if err != nil {
		return err
	}
	defer s.listener.Close()
	if s.config.Control != "" {
		if s.control, err = listenControl(s.config.Control); err != nil {
			return err
		}
		defer s.control.close()
	}
	published, err := listenMetrics(ctx, s.config)
	if err != nil {
		return err
	}
	if published != nil {
		defer published.Close()
	}
	if err := rememberVersion(s.config, first.seen()); err != nil {
		return fmt.Errorf("remembering the policy's version: %w", err)
	}
	if err := s.confine(first); err != nil {
		return err
	}
	if err := s.closeDied(); err != nil {
		return err
	}
	s.warnKeys(first)
	if err := s.audit.Append(eventServe, first.record("in_force")); err != nil {
		return err
	}
	s.lookAtStatements(time.Now())
	ready(s.listener.Addr(), first.bundle.Version)
	s.run(ctx, reload, published)
	return s.audit.Append(eventStop, s.ruling.Load().record("in_force"))
}

// run accepts until it is to end, then waits for the connections, or cuts them, and for their records.
func (s *Server) run(ctx context.Context, reload <-chan os.Signal, published net.Listener) {
	var background, visits sync.WaitGroup
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	background.Go(func() { s.watch(watching, reload) })
	background.Go(func() { s.keepFresh(watching) })
	if s.tuning != nil {
		background.Go(func() { s.tuning.run(watching, s.sessions.busy) })
	}
	background.Go(func() { s.watchStatements(watching) })
	background.Go(func() { s.watchPlugins(watching) })
	background.Go(func() { s.serveControl(watching) })
	background.Go(func() { s.untilStopped(ctx) })
	background.Go(func() { s.followLogins(watching) })
	if published != nil {
		background.Go(func() { s.publishMetrics(watching, published) })
	}

	serving, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	for {
		conn, err := s.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("accepting", "error", err)
				pause(ctx, acceptBackoff)
			}
			continue
		}
		if place, ok := s.admit(conn, time.Now()); ok {
			visits.Go(func() { s.receive(serving, conn, place) })
		}
	}
	s.finish(ctx, &visits, end)
	stopWatching()
	background.Wait()
	s.refusals.flush(time.Now().Add(time.Minute), s.writeRefusal)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// countDrops takes over what the kernel has dropped since the last time.
func (s *Server) countDrops(now time.Time) {
	n, err := s.listener.Drops()
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			s.log.Debug("counting dropped segments", "error", err)
		}
		return
	}
	if d := n - s.drops.Swap(n); d > 0 {
		s.refusals.add(netip.Prefix{}, droppedByFilter, int(d), now)
	}
}

func (s *Server) writeRefusal(r refusalRecord) {
	if err := s.audit.AppendRefused(eventRefused, r); err != nil {
		s.log.Warn("writing a count of refusals", "error", err)
	}
}

// append writes a record that nothing waits for.
func (s *Server) append(event string, record any) {
	if err := s.audit.Append(event, record); err != nil {
		s.log.Error("writing to audit log", "event", event, "error", err)
	}
}
