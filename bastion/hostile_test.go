package bastion

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/rawssh"
	"mayfly/testenv/softkey"
)

// mostHeld is what hostile input may leave in this process, attacker and test included.
const mostHeld = 24 << 20

// beside runs an attack while bert's session goes on, and sees that it works before, meanwhile and after, that memory comes back, and that the log
// verifies (the fixture does that).
func (f *fixture) beside(attack func()) {
	f.t.Helper()
	drained := make(chan struct{})
	stop := make(chan struct{})
	go func() { // nobody reads these records here
		defer close(drained)
		for {
			select {
			case <-f.spy.entries:
			case <-stop:
				return
			}
		}
	}()
	defer func() { close(stop); <-drained }()
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	f.answers(bert)
	before := held()
	over := make(chan struct{})
	go func() { defer close(over); attack() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-over:
			done = true
		case <-tick.C:
		}
		began := time.Now()
		f.answers(bert)
		if took := time.Since(began); took > 5*time.Second {
			f.t.Errorf("another engineer waited %v", took)
		}
	}
	for deadline := time.Now().Add(patience); ; <-tick.C {
		after := held()
		if after < before+mostHeld {
			break
		}
		if time.Now().After(deadline) {
			f.t.Errorf("%d bytes held before, %d after", before, after)
			break
		}
	}
	f.answers(bert)
	bert.Close()
}

// TestHostileBytes sends what is no SSH, broken SSH, and good SSH with one byte changed, at every stage.
func TestHostileBytes(t *testing.T) {
	f := attacked(t)
	f.policy.SSH.PenaltyExempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} // or penalties would end it
	f.writeBundle(2)
	f.start()
	random := rand.New(rand.NewPCG(3, 14))
	junk := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	const version = "SSH-2.0-x\r\n"
	send := func(parts ...[]byte) {
		conn, err := net.Dial("tcp", f.address)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(2 * time.Second))
		for _, part := range parts {
			if _, err := conn.Write(part); err != nil {
				return
			}
		}
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, conn)
	}
	f.beside(func() {
		send(make([]byte, 1<<16))
		for _, length := range []uint32{0, 1, 5, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffc} { // 4 GiB and other lies, in the clear
			send([]byte(version), []byte{byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length), 4, 20}, make([]byte, 4096))
		}
		for i := range 40 {
			send(junk(1 + random.IntN(3000)))
			send([]byte(version), junk(1+random.IntN(3000)))
			hello := rawssh.KeyInit()
			hello[random.IntN(len(hello))] ^= byte(1 + random.IntN(255))
			pad := 8 - (5+len(hello))%8 + 8
			send([]byte(version), []byte{0, 0, byte((1 + len(hello) + pad) >> 8), byte(1 + len(hello) + pad), byte(pad)}, hello, make([]byte, pad), junk(300))
			c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{})
			if err != nil {
				continue
			}
			c.Conn().SetDeadline(time.Now().Add(2 * time.Second))
			switch i % 4 { // encrypted, or as if it were
			case 0:
				c.Conn().Write(junk(400))
			case 1:
				c.Conn().Write([]byte{0xff, 0xff, 0xff, 0xf0})
				c.Conn().Write(junk(4096))
			case 2:
				c.Write(junk(1 + random.IntN(500)))
			default:
				c.Service()
				c.Write(append([]byte{50}, junk(random.IntN(300))...))
			}
			c.Conn().(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c.Conn())
			c.Close()
		}
		for range 8 { // within a session
			c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{})
			if err != nil || c.Login("anna", f.anna.Signer(softkey.Always)) != nil {
				t.Error("anna cannot log in")
				return
			}
			c.Conn().SetDeadline(time.Now().Add(2 * time.Second))
			for range 30 {
				if c.Write(append([]byte{byte(80 + random.IntN(21))}, junk(random.IntN(200))...)) != nil {
					break
				}
			}
			c.Close()
		}
	})
}

// TestChannelFlood opens a hundred thousand channels, and sends as many global requests, without waiting for an answer or reading one.
func TestChannelFlood(t *testing.T) {
	count := 100_000
	if testing.Short() {
		count = 5_000
	}
	for name, message := range map[string]func(i int) []byte{
		"channels": func(i int) []byte { return channelOpen("session", uint32(i), 1<<31, nil) },
		"jumps": func(i int) []byte {
			return channelOpen("direct-tcpip", uint32(i), 1<<31, ssh.Marshal(struct {
				Host       string
				Port       uint32
				Origin     string
				OriginPort uint32
			}{"nl-1", 22, "127.0.0.1", 1}))
		},
		"requests": func(int) []byte {
			return append(ssh.Marshal(struct {
				Name string `sshtype:"80"`
			}{"tcpip-forward"}), 1)
		},
	} {
		for _, reads := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, reading %v", name, reads), func(t *testing.T) {
				f := attacked(t)
				f.start()
				f.beside(func() {
					c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{})
					if err != nil || c.Login("anna", f.anna.Signer(softkey.Always)) != nil {
						t.Error("anna cannot log in")
						return
					}
					defer c.Close()
					if reads {
						go io.Copy(io.Discard, c.Conn())
					} else {
						c.Conn().SetDeadline(time.Now().Add(2 * time.Second)) // until nothing fits any more
					}
					for i := range count {
						if err := c.Write(message(i)); err != nil {
							if reads {
								t.Errorf("after %d: %v", i, err)
							}
							break
						}
					}
				})
			})
		}
	}
}

// TestSlowReader has targets send without end to a client that gives a window of 4 GiB on every channel it may have, and reads nothing.
func TestSlowReader(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.13:22", echo)
	f.target("10.77.0.11:22", func(conn *net.TCPConn) {
		conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for block := make([]byte, 64<<10); ; {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	})
	f.start()
	f.beside(func() {
		c, err := rawssh.Dial(t.Context(), f.address, rawssh.Offer{})
		if err != nil || c.Login("anna", f.anna.Signer(softkey.Always)) != nil {
			t.Error("anna cannot log in")
			return
		}
		defer c.Close()
		for i := range 8 {
			if err := c.Write(channelOpen("direct-tcpip", uint32(i), 0xffffffff, ssh.Marshal(struct {
				Host       string
				Port       uint32
				Origin     string
				OriginPort uint32
			}{"se-1", 22, "127.0.0.1", 1}))); err != nil {
				t.Error(err)
			}
		}
		<-time.After(2 * time.Second) // the attack: nothing is read
		if n := held(); n > 64<<20 {
			t.Errorf("%d bytes held meanwhile", n)
		}
	})
}

// TestConnectionRate opens connections from one source as fast as it can: its handshakes at a time stay within its bound, it collects refusals,
// and somebody else logs in meanwhile.
func TestConnectionRate(t *testing.T) {
	f := attacked(t)
	const bound = 4
	f.policy.SSH.MaxPerSource = bound
	f.writeBundle(2)
	f.start()
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var tried, greeted atomic.Int64
	for range 8 {
		flood.Go(func() {
			for ctx.Err() == nil {
				conn, err := dialFrom(ctx, "127.0.0.3", f.address)
				if err != nil {
					continue
				}
				tried.Add(1)
				io.WriteString(conn, "SSH-2.0-rate\r\n")
				conn.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := conn.Read(make([]byte, 4)); err == nil {
					greeted.Add(1)
				}
				conn.Close()
			}
		})
	}
	began, most := time.Now(), 0
	f.beside(func() {
		for time.Since(began) < 2*time.Second {
			f.server.startups.mu.Lock()
			most = max(most, f.server.startups.held(network(netip.MustParseAddr("127.0.0.3"))))
			f.server.startups.mu.Unlock()
		}
	})
	stop()
	flood.Wait()
	if most > bound {
		t.Errorf("%d handshakes of one source at a time, want %d at most", most, bound)
	}
	if tried.Load() < 100 || greeted.Load() > tried.Load()/2 {
		t.Errorf("%d of %d connections were greeted", greeted.Load(), tried.Load())
	}
	if _, refused := f.server.penalties.refused(network(netip.MustParseAddr("127.0.0.3")), time.Now()); !refused {
		t.Error("the source is not penalised")
	}
	t.Logf("%d connections in %v, %d greeted, %d at a time", tried.Load(), time.Since(began).Round(time.Millisecond), greeted.Load(), most)
}
