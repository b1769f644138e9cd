package bastion

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/testenv/softkey"
)

// dialFrom connects from a loopback address of choice.
func dialFrom(ctx context.Context, source, to string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return dialer.DialContext(ctx, "tcp", to)
}

// TestUnlistedAddressGetsNoAnswer sees the kernel drop the SYN: no SYN-ACK, no reset, nothing until the caller gives up.
func TestUnlistedAddressGetsNoAnswer(t *testing.T) {
	f := newFixture(t)
	f.start()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if conn, err := dialFrom(ctx, "127.0.0.66", f.address); err == nil {
		conn.Close()
		t.Fatal("connected")
	} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) && !isTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(droppedByFilter)) {
		t.Errorf("refusal record: %s", got)
	}
	listed, err := dialFrom(t.Context(), "127.0.0.3", f.address)
	if err != nil {
		t.Fatal(err)
	}
	listed.Close()
	if r := f.closing(); r.Reason != leftEarly || !strings.Contains(r.Source, "127.0.0.3:") {
		t.Errorf("listed address: %+v", r)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestSessionCaps(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.MaxPerEngineer, f.policy.SSH.MaxSessions = 1, 2
	f.policy.Engineers = append(f.policy.Engineers, policies.Engineer{Name: "cleo"})
	cleo, err := softkey.New(constant{})
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Engineers[2].Keys = []policies.Key{{Public: cleo.Authorized(), Evidence: "test:softkey"}}
	f.writeBundle(2)
	f.start()
	first := f.login("anna", f.anna.Signer(softkey.Always))
	if _, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
		t.Error("a second session of one engineer")
	}
	if r := f.closing(); r.Reason != engineerFull {
		t.Errorf("got %s, want %s", r.Reason, engineerFull)
	}
	f.login("bert", f.bert.Signer(softkey.Always))
	if _, err := f.client("cleo", cleo.Signer(softkey.Always)); err == nil {
		t.Error("a third session")
	}
	if r := f.closing(); r.Reason != sessionsFull {
		t.Errorf("got %s, want %s", r.Reason, sessionsFull)
	}
	first.Close()
	f.closing()
	f.login("cleo", cleo.Signer(softkey.Always))
}

// quietLog takes records in a bubble, where there is no file.
type quietLog struct{ closings []closingRecord }

func (q *quietLog) Healthy() error                               { return nil }
func (q *quietLog) AppendOpening(event string, record any) error { return q.Append(event, record) }
func (q *quietLog) AppendRefused(event string, record any) error { return q.Append(event, record) }

func (q *quietLog) Append(_ string, record any) error {
	if r, ok := record.(closingRecord); ok {
		q.closings = append(q.closings, r)
	}
	return nil
}

// TestSlowHandshake sees a client that sends a byte now and then cut at the deadline, to the second.
func TestSlowHandshake(t *testing.T) {
	f := newFixture(t)
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		policy := f.policy
		policy.SSH.HandshakeDeadline = policies.Duration(10 * time.Second)
		r, err := rule(&bundle.Bundle{Policy: policy, Inventory: f.fleet}, keys)
		if err != nil {
			t.Fatal(err)
		}
		keys.certificate.ValidAfter = 0 // a bubble's clock begins in 2000
		log := &quietLog{}
		s := &Server{log: slog.New(slog.DiscardHandler), audit: log}
		s.ruling.Store(r)
		here, there := net.Pipe()
		var slow sync.WaitGroup
		defer slow.Wait()
		slow.Go(func() {
			defer there.Close()
			buffer := make([]byte, 64)
			if _, err := there.Read(buffer); err != nil {
				return
			}
			for _, b := range []byte("SSH-2.0-slow-and-slower-and-slower-still") {
				if _, err := there.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		began := time.Now()
		s.visit(t.Context(), here, netip.MustParseAddrPort("127.0.0.1:1"), nil)
		if got := time.Since(began); got != 10*time.Second {
			t.Errorf("cut after %v, want 10s", got)
		}
		if len(log.closings) != 1 {
			t.Fatalf("%d closing records, want 1", len(log.closings))
		}
		if got := log.closings[0]; got.Reason != handshakeTimeout || got.Outcome != "refused" {
			t.Errorf("record: %+v", got)
		}
	})
}

// TestSlowAuthentication sees the deadline hold after the key exchange as well, on a real socket.
func TestSlowAuthentication(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.HandshakeDeadline = policies.Duration(3 * time.Second) // a loaded machine makes its key exchange within
	f.writeBundle(2)
	f.start()
	slow := &patient{Signer: f.anna.Signer(softkey.Always), until: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		client, err := f.client("anna", slow)
		if err == nil {
			client.Close()
		}
		done <- err
	}()
	if r := f.closing(); r.Reason != handshakeTimeout || r.User != "anna" {
		t.Errorf("record: %+v", r)
	}
	close(slow.until)
	if err := <-done; err == nil {
		t.Error("logged in after the deadline")
	}
}

// patient signs only when it is told to.
type patient struct {
	ssh.Signer
	until chan struct{}
}

func (p *patient) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	<-p.until
	return p.Signer.Sign(r, data)
}

func TestRefusalsAreCounted(t *testing.T) {
	var r refusals
	var written []refusalRecord
	write := func(record refusalRecord) { written = append(written, record) }
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	one := netip.MustParsePrefix("192.0.2.1/32")
	r.add(one, startupsFull, 1, start)
	r.flush(start.Add(time.Second), write)
	for i := range 1000 {
		r.add(one, startupsFull, 1, start.Add(2*time.Second))
		r.flush(start.Add(2*time.Second+time.Duration(i)*time.Millisecond), write)
	}
	r.flush(start.Add(time.Minute), write)
	r.flush(start.Add(2*time.Minute), write)
	if len(written) != 2 || written[0].Count != 1 || written[1].Count != 1001 || written[1].Network != "192.0.2.1/32" {
		t.Errorf("written: %+v", written)
	}
	for i := range 3 * maxCounted {
		r.add(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), startupsFull, 1, start)
	}
	if len(r.counts) > maxCounted+1 {
		t.Errorf("%d counts, want at most %d", len(r.counts), maxCounted+1)
	}
}

func TestNetworkOfASource(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{"192.0.2.7", "192.0.2.7/32"}, {"2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
	} {
		if got := network(netip.MustParseAddr(test.source)).String(); got != test.want {
			t.Errorf("network of %s: got %s, want %s", test.source, got, test.want)
		}
	}
	conn := mapped{}
	if got := sourceOf(conn).Addr(); got != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("mapped address: got %s", got)
	}
}

// mapped is a connection from an IPv4 address in IPv6 form.
type mapped struct{ net.Conn }

func (mapped) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 1}
}
