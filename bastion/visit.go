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

	"mayfly/policies"
)

// visit is one admitted connection.
type visit struct {
	server *Server
	id     string
	conn   net.Conn
	source netip.AddrPort
	place  *place // nil in some tests
	began  time.Time
	ruling *ruling // in force at arrival: algorithms and limits; decisions are made by the newest

	// owned by the handshake, read after it
	meta       ssh.ConnMetadata
	claimed    string
	tried      attempts
	denied     *policies.Verdict
	credential credential
	login      policies.Login // a decision for a session goes by the one that was entered

	last atomic.Int64 // when bytes last moved, nanoseconds after began

	mu     sync.Mutex
	open   []*opened
	record closingRecord
	ended  string // first cause
	why    policies.Reason
}

// visit takes an admitted connection from its first byte to its closing record.
func (s *Server) visit(ctx context.Context, conn net.Conn, source netip.AddrPort, place *place) {
	defer s.startups.leave(place)
	v := &visit{server: s, id: newID(), conn: conn, source: source, place: place, began: time.Now(), ruling: s.ruling.Load()}
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
	s.startups.leave(place)
	defer s.sessions.leave(v)
	if err != nil {
		why, detail := v.explain(err)
		v.finish(endRefused, "")
		v.write("refused", why, detail)
		return
	}
	s.letIn(source.Addr(), time.Now())
	v.serve(ctx, sshConn, channels, requests)
	v.write("accepted", v.reason(), "")
}

// serve carries an accepted connection to its end.
func (v *visit) serve(ctx context.Context, conn *ssh.ServerConn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	// A stop reaches the session through cut, which says why it ends, and not through ctx.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
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
