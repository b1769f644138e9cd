package bastion

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/rawssh"
	"mayfly/testenv/softkey"
)

// forgetful is an audit log that forgets.
type forgetful struct {
	mu       sync.Mutex
	closings []closingRecord
}

func (q *forgetful) Append(event string, record any) error {
	if r, ok := record.(closingRecord); ok {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.closings = append(q.closings, r)
	}
	return nil
}

func (q *forgetful) AppendOpening(string, any) error              { return nil }
func (q *forgetful) AppendRefused(event string, record any) error { return q.Append(event, record) }
func (q *forgetful) Healthy() error                               { return nil }
func (q *forgetful) take() []closingRecord {
	q.mu.Lock()
	defer q.mu.Unlock()
	got := q.closings
	q.closings = nil
	return got
}

// States of a connection at which FuzzServer feeds its bytes.
const (
	beforeVersion = iota
	afterVersion
	afterKeys  // encrypted bytes, which no key has made
	asPackets  // packets of this client, before anybody is in
	afterLogin // likewise, of anna
	fuzzedStates
)

// FuzzServer feeds bytes to a whole server over a pipe, at each state of a connection. Whatever they are, the visit ends when they do, with one
// closing record, which lets nobody in before the login.
func FuzzServer(f *testing.F) {
	f.Add(byte(beforeVersion), []byte("SSH-2.0-x\r\n"))
	f.Add(byte(beforeVersion), []byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add(byte(afterVersion), append([]byte{0, 0, 1, 0, 4}, rawssh.KeyInit()...))
	f.Add(byte(afterVersion), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(byte(afterKeys), []byte{0, 0, 0, 16, 1, 2, 3})
	f.Add(byte(asPackets), ssh.Marshal(struct {
		Name string `sshtype:"5"`
	}{"ssh-userauth"}))
	f.Add(byte(asPackets), ssh.Marshal(struct {
		User, Service, Method string `sshtype:"50"`
	}{"anna", "ssh-connection", "none"}))
	f.Add(byte(afterLogin), channelOpen("direct-tcpip", 0, 1<<20, ssh.Marshal(struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{"se-1", 22, "127.0.0.1", 1})))
	f.Add(byte(afterLogin), rawssh.KeyInit())
	f.Add(byte(afterLogin), number(97, 0))

	var s *Server
	var anna *softkey.Key
	log := &forgetful{}
	var once sync.Once
	f.Fuzz(func(t *testing.T, state byte, data []byte) {
		once.Do(func() {
			made := newFixture(t)
			anna = made.anna
			server, err := newServer(made.config, slog.New(slog.DiscardHandler), log, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			server.dial = func(_ context.Context, _ netip.AddrPort) (halfCloser, error) {
				return nil, errors.New("no targets here")
			}
			s = server
		})
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.visit(t.Context(), far, netip.MustParseAddrPort("127.0.0.1:4711"), nil)
		}()
		near.SetDeadline(time.Now().Add(10 * time.Second))
		state %= fuzzedStates
		in := feed(near, state, data, anna)
		near.Close()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("state %d: the visit does not end", state)
		}
		records := log.take()
		if len(records) > 1 {
			t.Errorf("state %d: %d closing records", state, len(records))
		}
		for _, r := range records {
			if r.Outcome == "accepted" && !in {
				t.Errorf("state %d: let in: %+v", state, r)
			}
		}
	})
}

// feed brings a connection to a state, sends the bytes, and tells whether anna logged in.
func feed(conn net.Conn, state byte, data []byte, anna *softkey.Key) (in bool) {
	plain := func() {
		go io.Copy(io.Discard, conn)
		conn.Write(data)
	}
	switch state {
	case beforeVersion:
		plain()
		return false
	case afterVersion:
		go io.Copy(io.Discard, conn)
		if _, err := io.WriteString(conn, "SSH-2.0-fuzz\r\n"); err == nil {
			conn.Write(data)
		}
		return false
	}
	way := writesAside(conn)
	defer way.end()
	c, err := rawssh.Handshake(way, rawssh.Offer{})
	if err != nil {
		return false
	}
	if state == afterKeys {
		plain()
		return false
	}
	if state == afterLogin {
		if c.Login("anna", anna.Signer(softkey.Always)) != nil {
			return false
		}
	}
	go io.Copy(io.Discard, conn)
	for range 20 { // more than wait in the library
		if c.Write(data) != nil {
			break
		}
	}
	return state == afterLogin
}

// aside writes in a goroutine of its own: both sides of a pipe begin with their version, and neither reads meanwhile.
type aside struct {
	net.Conn
	out  chan []byte
	gone chan struct{}
}

// end waits until what was written has gone out, or cannot.
func (a *aside) end() {
	close(a.out)
	<-a.gone
}

func writesAside(conn net.Conn) *aside {
	a := &aside{conn, make(chan []byte, 64), make(chan struct{})}
	go func() {
		defer close(a.gone)
		for b := range a.out {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	}()
	return a
}

func (a *aside) Write(b []byte) (int, error) {
	select {
	case a.out <- append([]byte(nil), b...):
		return len(b), nil
	default:
		return 0, errors.New("the other side does not read")
	}
}
