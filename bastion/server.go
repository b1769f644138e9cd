package bastion

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/audit"
	"mayfly/policies"
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
	listener *listener
	loaded   stamp
	dial     func(ctx context.Context, address netip.AddrPort) (halfCloser, error)

	ownAddresses func() ([]netip.Addr, error)

	ruling   atomic.Pointer[ruling]
	startups startups
	sessions sessions
	refusals refusals
	drops    uint32 // last count read; owned by watch
}

// Serve runs a bastion until ctx ends. It calls ready once it listens; a signal on reload makes it read its files again.
func Serve(ctx context.Context, c Config, log *slog.Logger, reload <-chan os.Signal, ready func(address net.Addr, policy uint64)) (err error) {
	records, err := audit.Open(c.Audit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	s, err := newServer(c, log, records, time.Now())
	if err != nil {
		return err
	}
	return s.serve(ctx, reload, ready)
}

// newServer loads everything that a bastion serves by.
func newServer(c Config, log *slog.Logger, records auditLog, now time.Time) (*Server, error) {
	s := &Server{config: c, log: log, audit: records, dial: dialingFrom(c.Listen.Addr()), ownAddresses: machineAddresses, loaded: c.stamp()}
	seen, err := seenVersion(c)
	if err != nil {
		return nil, err
	}
	first, err := load(c, seen, now)
	if err != nil {
		return nil, err
	}
	s.ruling.Store(first)
	return s, nil
}

func (s *Server) serve(ctx context.Context, reload <-chan os.Signal, ready func(address net.Addr, policy uint64)) (err error) {
	first := s.ruling.Load()
	if s.listener, err = listen(ctx, s.config.Listen, first.filter); err != nil {
		return err
	}
	defer s.listener.Close()
	if err := rememberVersion(s.config, first.bundle.Version); err != nil {
		return fmt.Errorf("remembering the policy's version: %w", err)
	}
	if err := s.audit.Append(eventServe, first.record("in_force")); err != nil {
		return err
	}
	ready(s.listener.Addr(), first.bundle.Version)
	s.run(ctx, reload)
	return s.audit.Append(eventStop, s.ruling.Load().record("in_force"))
}

// run accepts until ctx ends, then ends every connection and waits for their records.
func (s *Server) run(ctx context.Context, reload <-chan os.Signal) {
	var background, visits sync.WaitGroup
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	background.Go(func() { s.watch(watching, reload) })
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()

	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		conn, err := s.listener.AcceptTCP()
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("accepting", "error", err)
				pause(ctx, acceptBackoff)
			}
			continue
		}
		leave, ok := s.admit(conn, time.Now())
		if ok {
			visits.Go(func() { s.visit(serving, conn, sourceOf(conn), leave) })
		}
	}
	end()
	done := make(chan struct{})
	go func() { visits.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(stopLimit):
		s.log.Error("some connections did not end in time")
	}
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

// admit decides on the address once more, since a segment may have passed an older filter, and takes a start-up place.
func (s *Server) admit(conn *net.TCPConn, now time.Time) (leave func(), ok bool) {
	r := s.ruling.Load()
	source := sourceOf(conn).Addr()
	from := network(source)
	verdict := r.bundle.Policy.Admit(source, now)
	why := verdict.Reason
	if verdict.Allow {
		if leave, why = s.startups.enter(from, r.limits); why == "" {
			if err := release(conn); err != nil {
				s.log.Warn("taking the address filter off a connection", "error", err)
			}
			return leave, true
		}
	}
	s.refusals.add(from, why, 1, now)
	// No farewell: the peer gets a reset, and the kernel keeps nothing.
	if err := errors.Join(conn.SetLinger(0), conn.Close()); err != nil {
		s.log.Debug("closing a refused connection", "error", err)
	}
	return nil, false
}

// visit is one admitted connection.
type visit struct {
	server *Server
	id     string
	conn   net.Conn
	source netip.AddrPort
	began  time.Time
	ruling *ruling // in force at arrival: algorithms and limits; decisions are made by the newest

	// owned by the handshake, read after it
	meta       ssh.ConnMetadata
	claimed    string
	tried      attempts
	denied     *policies.Verdict
	credential credential
	login      policies.Login

	last atomic.Int64 // when bytes last moved, nanoseconds after began

	mu     sync.Mutex
	open   []*opened
	record closingRecord
	ended  string // first cause
	why    policies.Reason
}

// visit takes an admitted connection from its first byte to its closing record.
func (s *Server) visit(ctx context.Context, conn net.Conn, source netip.AddrPort, leave func()) {
	defer leave()
	v := &visit{server: s, id: newID(), conn: conn, source: source, began: time.Now(), ruling: s.ruling.Load()}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { v.cut(endStopping, "") })
	defer stop()

	if !v.ruling.keys.valid(v.began) {
		s.log.Error("the host certificate is not valid: connections are refused", "hint", certifyHint)
		v.finish(endRefused, "")
		v.write("refused", certificateExpired, "")
		return
	}
	sshConn, channels, requests, err := v.handshake()
	leave()
	defer s.sessions.leave(v)
	if err != nil {
		why, detail := v.explain(err)
		v.finish(endRefused, "")
		v.write("refused", why, detail)
		return
	}
	v.serve(ctx, sshConn, channels, requests)
	v.write("accepted", v.reason(), "")
}

// serve carries an accepted connection to its end.
func (v *visit) serve(ctx context.Context, conn *ssh.ServerConn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	defer conn.Close()

	v.active()
	helpers.Go(func() { v.limit(ctx) })
	helpers.Go(func() { v.serveRequests(requests) })
	ended := make(chan error, 1)
	helpers.Go(func() {
		ended <- conn.Wait()
		cancel() // also what waits for a silent target
	})
	v.serveChannels(ctx, channels)
	if err := <-ended; errors.Is(err, io.EOF) || isDisconnect(err) {
		v.finish(endClient, "")
	} else {
		v.finish(endLost, "")
	}
}

// quietRequests are asked for by well-behaved clients; their refusal is no news.
var quietRequests = map[string]bool{"keepalive@openssh.com": true, "no-more-sessions@openssh.com": true, "hostkeys-prove-00@openssh.com": true}

// serveRequests refuses every global request.
func (v *visit) serveRequests(requests <-chan *ssh.Request) {
	for r := range requests {
		if !quietRequests[r.Type] {
			v.noteRefused(r.Type, requestRefused, "")
		}
		if r.WantReply {
			if err := r.Reply(false, nil); err != nil {
				continue // the connection is ending; draining lets it
			}
		}
	}
}

// limit ends the visit when it was idle too long, or has lasted too long.
func (v *visit) limit(ctx context.Context) {
	limits := v.ruling.limits
	session := time.NewTimer(limits.SessionLimit)
	defer session.Stop()
	idle := time.NewTimer(limits.IdleTimeout)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-session.C:
			v.cut(endLimit, "")
			return
		case <-idle.C:
			left := limits.IdleTimeout - (time.Since(v.began) - time.Duration(v.last.Load()))
			if left <= 0 {
				v.cut(endIdle, "")
				return
			}
			idle.Reset(left)
		}
	}
}

// active notes that bytes moved.
func (v *visit) active() { v.last.Store(int64(time.Since(v.began))) }

// cut ends the visit now. The first cause is the one that is recorded, for the open targets as well.
func (v *visit) cut(how string, why policies.Reason) {
	v.finish(how, why)
	for _, o := range v.openTargets() {
		o.cut(how, why)
	}
	if err := v.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		v.server.log.Debug("closing a connection", "connection", v.id, "error", err)
	}
}

func (v *visit) finish(how string, why policies.Reason) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended == "" {
		v.ended, v.why = how, why
	}
}

// reason of an accepted visit: allowed, or why a policy cut it.
func (v *visit) reason() policies.Reason {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.why != "" {
		return v.why
	}
	return policies.Allowed
}

func newID() string {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("bastion: internal error: no random numbers: " + err.Error())
	}
	return hex.EncodeToString(b[:])
}

// countDrops takes over what the kernel has dropped since the last time.
func (s *Server) countDrops(now time.Time) {
	n, err := s.listener.drops()
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			s.log.Debug("counting dropped segments", "error", err)
		}
		return
	}
	if d := n - s.drops; d > 0 {
		s.refusals.add(netip.Prefix{}, droppedByFilter, int(d), now)
	}
	s.drops = n
}

func (s *Server) writeRefusal(r refusalRecord) { s.append(eventRefused, r) }

// append writes a record that nothing waits for.
func (s *Server) append(event string, record any) {
	if err := s.audit.Append(event, record); err != nil {
		s.log.Error("writing to audit log", "event", event, "error", err)
	}
}
