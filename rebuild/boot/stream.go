package boot

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"mayfly/inventory/store"
	"mayfly/rebuild/join"
)

// Bounds of a stream.
const (
	writeDeadline  = 10 * time.Second
	maxQueuedOrder = 5 + join.MaxTrustSteps
)

// stream is one server's connection. Its reader is the goroutine that accepted it, its writer one more.
type stream struct {
	life
	bootID  string
	conn    *tls.Conn
	expires time.Time // of its certificate
	orders  chan join.ToServer
	sent    func(join.ToServer) // called by the writer with what was written
	done    chan struct{}       // closed when the stream is cut

	once sync.Once
	// Owned by watch: what was sent already.
	policy   [sha256.Size]byte
	trust    uint64
	drained  bool
	restart  [sha256.Size]byte
	proven   bool
	extended [sha256.Size]byte
}

func (st *stream) cut() {
	st.once.Do(func() {
		close(st.done)
		// Unblocks the reader and the writer; their errors end the stream.
		_ = st.conn.NetConn().Close()
	})
}

// streams holds at most one stream for each server.
type streams struct {
	mu   sync.Mutex // guards open
	open map[string]*stream
}

func (s *streams) put(st *stream) {
	s.mu.Lock()
	old := s.open[st.name]
	s.open[st.name] = st
	s.mu.Unlock()
	if old != nil {
		old.cut()
	}
}

func (s *streams) remove(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[st.name] == st {
		delete(s.open, st.name)
	}
}

func (s *streams) all() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*stream, 0, len(s.open))
	for _, st := range s.open {
		list = append(list, st)
	}
	return list
}

// cut ends the stream of one life, and of no other life of that server.
func (s *streams) cut(l life) {
	s.mu.Lock()
	st := s.open[l.name]
	s.mu.Unlock()
	if st != nil && st.life == l {
		st.cut()
	}
}

func (s *streams) closeAll() {
	for _, st := range s.all() {
		st.cut()
	}
}

// alive finds the present life that a verified certificate belongs to, or refuses.
func (s *service) alive(ctx context.Context, cert *x509.Certificate, now time.Time) (*stream, error) {
	name, ok := strings.CutSuffix(cert.Subject.CommonName, "."+s.Fleet.Domain)
	if _, known := s.Fleet.RebuiltServer(name); !ok || !known {
		return nil, join.Refuse(join.ServerUnknown, "%q is no server of fleet %q", cert.Subject.CommonName, s.Fleet.Name)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || !now.Before(cert.NotAfter) {
		return nil, join.Refuse(join.CertificateBad, "the certificate of %q has expired or has no Ed25519 key", name)
	}
	present, err := s.Store.Server(ctx, name)
	if err != nil {
		return nil, err
	}
	if present.TLSKey == "" || present.TLSKey != join.KeyHash(key) {
		return nil, join.Refuse(join.LifeUnknown, "the present life of %q has another key", name)
	}
	revoked, err := s.Store.Revoked(ctx, name, present.Epoch)
	if err != nil {
		return nil, err
	}
	if revoked {
		return nil, join.Refuse(join.LifeRevoked, "life %d of %q is revoked", present.Epoch, name)
	}
	return &stream{life: life{name, present.Epoch}, bootID: present.BootID, expires: cert.NotAfter}, nil
}

// stream serves one connection of the stream protocol until it ends.
func (s *service) stream(ctx context.Context, conn *tls.Conn) {
	state := conn.ConnectionState()
	if len(state.VerifiedChains) == 0 {
		s.Log.Warn("stream refused", "remote", conn.RemoteAddr(), "reason", join.CertificateBad)
		closeQuietly(conn)
		return
	}
	st, err := s.alive(ctx, state.PeerCertificates[0], s.now())
	if err != nil {
		s.Log.Warn("stream refused", "remote", conn.RemoteAddr(), "error", err)
		closeQuietly(conn)
		return
	}
	st.conn = conn
	st.orders = make(chan join.ToServer, maxQueuedOrder)
	st.done = make(chan struct{})
	st.sent = func(m join.ToServer) { s.sent(ctx, st, m) }
	s.streams.put(st)
	defer s.streams.remove(st)
	stop := context.AfterFunc(ctx, st.cut)
	defer stop()
	s.Log.Info("stream opened", "server", st.name, "epoch", st.epoch)
	var writer sync.WaitGroup
	writer.Go(func() { st.write() })
	err = s.read(ctx, st)
	st.cut()
	writer.Wait()
	s.Log.Info("stream ended", "server", st.name, "epoch", st.epoch, "cause", err)
}

// read takes a server's messages; each must come within StreamSilence and before the certificate ends.
func (s *service) read(ctx context.Context, st *stream) error {
	frames := join.NewFrames(st.conn, join.MaxFromServer)
	for {
		now := s.now()
		if !now.Before(st.expires) {
			return errors.New("the certificate has expired")
		}
		if err := st.conn.SetReadDeadline(now.Add(join.StreamSilence)); err != nil {
			return fmt.Errorf("setting a deadline: %w", err)
		}
		m, err := frames.FromServer()
		if errors.Is(err, io.EOF) {
			return errors.New("closed by the server")
		}
		if err != nil {
			return err
		}
		if err := s.take(ctx, st, m); err != nil {
			return err
		}
	}
}

// take writes one message into the store.
func (s *service) take(ctx context.Context, st *stream, m join.FromServer) error {
	if m.Drained != nil {
		s.Log.Info("drained", "server", st.name, "epoch", st.epoch, "forced", m.Drained.Forced)
		return s.Store.SetDrained(ctx, st.name, st.epoch, m.Drained.Forced)
	}
	if m.Login != nil {
		return s.takeLogin(ctx, st, *m.Login)
	}
	if m.Health.BootID != st.bootID {
		return join.Refuse(join.RequestInvalid, "health of boot %q, %q joined as %q", m.Health.BootID, st.name, st.bootID)
	}
	data, err := join.Encode(m.Health)
	if err != nil {
		return err
	}
	return s.Store.SetHealth(ctx, st.name, st.epoch, data, s.now())
}

// takeLogin keeps an engineer's login, durably, and says so. A server sends it again until it has heard that.
func (s *service) takeLogin(ctx context.Context, st *stream, l join.Login) error {
	fresh, err := s.Store.AddLogin(ctx, store.Login{
		Server: st.name, Epoch: st.epoch, Number: l.Number, At: l.Time, Seen: s.now(),
		User: l.User, Method: l.Method, Key: l.Key, Peer: l.Peer, Unread: l.Unread, Missed: l.Missed,
	})
	if err != nil {
		return err
	}
	if fresh {
		s.Log.Info("login", "server", st.name, "epoch", st.epoch, "user", l.User, "method", l.Method, "key", l.Key, "peer", l.Peer, "unread", l.Unread, "missed", l.Missed)
	}
	select {
	case st.orders <- join.ToServer{Logins: &join.Logins{Through: l.Number}}:
	default: // a later answer says this as well; without one, it comes again
	}
	return nil
}

// write sends orders until the stream is cut.
func (st *stream) write() {
	for {
		select {
		case <-st.done:
			return
		case m := <-st.orders:
			if err := st.conn.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil {
				st.cut()
				return
			}
			if err := join.WriteFrame(st.conn, m); err != nil {
				st.cut()
				return
			}
			st.sent(m)
		}
	}
}

// sent remembers that an order to restart has reached the server's connection: whoever ordered it waits for that.
func (s *service) sent(ctx context.Context, st *stream, m join.ToServer) {
	if m.Order == nil {
		return
	}
	s.Log.Info("order sent", "server", st.name, "epoch", st.epoch)
	if err := s.Store.RestartDelivered(ctx, st.name, st.epoch, s.now()); err != nil {
		s.Log.Error("recording an order", "server", st.name, "epoch", st.epoch, "error", err)
	}
}

// order queues a message; a server that does not read loses its stream.
func (st *stream) order(m join.ToServer) {
	select {
	case st.orders <- m:
	default:
		st.cut()
	}
}

// closeQuietly ends a connection that was refused: there is nobody to tell of an error.
func closeQuietly(c net.Conn) { _ = c.Close() }
