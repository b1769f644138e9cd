package bastion

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/wire"
	"mayfly/policies"
)

// visit is one admitted connection.
type visit struct {
	server *Server
	id     string
	conn   net.Conn // the wire
	wire   *wire.Conn
	source netip.AddrPort
	place  *place // nil in some tests
	began  time.Time
	ruling *ruling // in force at arrival: algorithms and the handshake's limits; all else goes by the newest

	// owned by the handshake, read after it
	meta       ssh.ConnMetadata
	claimed    string
	wanted     string // server of a session that the user name asks for
	tried      attempts
	denied     *policies.Verdict
	credential credential
	login      policies.Login // a decision for a session goes by the one that was entered
	written    bool           // the login's record is durable: whatever comes, this visit ends as an accepted one

	entered entered // under mu

	clocks   clocks
	channels atomic.Int32 // that are served now

	last atomic.Int64 // when bytes last moved, nanoseconds after began

	mu     sync.Mutex
	open   []*opened
	opened int // targets so far
	record closingRecord
	ended  string // first cause
	why    policies.Reason
}

// visit takes an admitted connection from its first byte to its closing record.
func (s *Server) visit(ctx context.Context, conn net.Conn, source netip.AddrPort, place *place) {
	defer s.startups.leave(place)
	w := wire.New(conn)
	v := &visit{server: s, id: newID(), conn: w, wire: w, source: source, place: place, began: time.Now(), ruling: s.ruling.Load()}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { v.cut(endStopping, causeOf(ctx)) })
	defer stop()

	if !v.ruling.keys.valid(v.began) {
		s.log.Error("the host certificate is not valid: connections are refused", "hint", certifyHint)
		v.finish(endRefused, "")
		v.write("refused", certificateExpired, "")
		return
	}
	sshConn, channels, requests, err := v.greet()
	took := time.Since(v.began)
	s.startups.leave(place)
	defer s.sessions.leave(v)
	if err != nil {
		v.conn.Close()
		drainLibrary(v.meta)
	}
	if err == nil || v.written {
		s.metrics.handshake(outcomeAccepted, took)
		s.metrics.accepted()
		s.letIn(source.Addr(), time.Now())
		v.comesFrom(time.Now())
	}
	if err != nil && v.written {
		v.lostAtTheDoor()
		return
	}
	if err != nil {
		s.metrics.handshake(outcomeRefused, took)
		why, detail := v.explain(err)
		v.finish(endRefused, "")
		v.write("refused", why, detail)
		return
	}
	v.serve(ctx, sshConn, channels, requests)
	v.write("accepted", v.reason(), "")
}

// lostAtTheDoor ends a visit whose connection was lost, or cut, between its login's record and the end of the handshake. The log has said
// that somebody was let in, and the client may have been told.
func (v *visit) lostAtTheDoor() {
	if v.place != nil && v.place.evicted.Load() {
		v.finish(endLost, evictedReason)
	} else {
		v.finish(endLost, "")
	}
	v.write("accepted", v.reason(), "")
}

// greet runs the handshake in a goroutine of its own, whose stack grows large and goes with it: this one's stays small for as long as the
// connection lasts.
func (v *visit) greet() (conn *ssh.ServerConn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, err error) {
	defer v.server.tuning.login()()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, channels, requests, err = v.handshake()
	}()
	<-done
	return conn, channels, requests, err
}

// serve carries an accepted connection to its end.
func (v *visit) serve(ctx context.Context, conn *ssh.ServerConn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	// A stop reaches the session through cut, which says why it ends, and not through ctx.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	v.active()
	defer v.limit()()
	v.answer(ctx, cancel, channels, requests)
	// The library has given the connection up, and its reader may wait for somebody to take what it has read.
	v.conn.Close()
	drainLibrary(conn)
	if err := conn.Wait(); errors.Is(err, io.EOF) || isDisconnect(err) {
		v.finish(endClient, "")
	} else {
		v.finish(endLost, "")
	}
}

// answer answers channels and global requests until the connection has ended, and waits for the jumps. One goroutine does both: an idle
// connection costs as little as can be.
func (v *visit) answer(ctx context.Context, cancel context.CancelFunc, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	var jumps sync.WaitGroup
	defer jumps.Wait()
	defer cancel() // also what waits for a silent target
	for channels != nil || requests != nil {
		select {
		case nc, ok := <-channels:
			if !ok {
				channels = nil
				continue
			}
			v.serveChannel(ctx, nc, &jumps)
		case r, ok := <-requests:
			if !ok {
				requests = nil
				continue
			}
			v.serveRequest(r)
		}
	}
}

// quietRequests are asked for by well-behaved clients; their refusal is no news.
var quietRequests = map[string]bool{"keepalive@openssh.com": true, "no-more-sessions@openssh.com": true, "hostkeys-prove-00@openssh.com": true}

// serveRequest refuses a global request.
func (v *visit) serveRequest(r *ssh.Request) {
	if !quietRequests[r.Type] {
		v.noteRefused(r.Type, requestRefused, "")
	}
	if r.WantReply {
		if err := r.Reply(false, nil); err != nil {
			v.server.log.Debug("refusing a request", "connection", v.id, "error", err) // it is ending
		}
	}
}

// clocks are the timers that end a visit. Their zero value does nothing.
type clocks struct {
	mu            sync.Mutex
	by            policies.Limits // what they are set by
	session, idle *time.Timer
}

// limit ends the visit when it was idle too long, or has lasted too long, until it is stopped.
func (v *visit) limit() (stop func()) {
	c := &v.clocks
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = time.AfterFunc(time.Hour, func() { v.cut(endLimit, "") })
	c.idle = time.AfterFunc(time.Hour, v.idleEnd)
	c.set(v, v.server.ruling.Load().limits) // a newer policy finds the clocks
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.session.Stop()
		c.idle.Stop()
		c.session, c.idle = nil, nil
	}
}

// limitAgain sets the clocks by a new policy's limits.
func (v *visit) limitAgain(limits policies.Limits) {
	c := &v.clocks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != nil && c.by != limits {
		c.set(v, limits)
	}
}

// set is called with mu held. What has ended already ends at once.
func (c *clocks) set(v *visit, limits policies.Limits) {
	c.by = limits
	c.session.Reset(max(0, limits.SessionLimit-time.Since(v.began)))
	c.idle.Reset(max(0, v.idleLeft(limits)))
}

func (v *visit) idleLeft(limits policies.Limits) time.Duration {
	return limits.IdleTimeout - (time.Since(v.began) - time.Duration(v.last.Load()))
}

// idleEnd cuts the visit, unless bytes have moved meanwhile.
func (v *visit) idleEnd() {
	c := &v.clocks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil {
		return
	}
	if left := v.idleLeft(c.by); left > 0 {
		c.idle.Reset(left)
		return
	}
	v.cut(endIdle, "")
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
