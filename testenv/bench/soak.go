package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/rawssh"
	"mayfly/testenv/softkey"
)

// What a soak may leave behind. A leak of one goroutine, or of one buffer, in each of some ten thousand sessions is far above it.
const (
	mostGoroutines = 5
	mostHeap       = 8 << 20  // bytes
	mostResident   = 24 << 20 // bytes: the runtime gives memory back by and by
	soakSettle     = 60 * time.Second
	soakWorkers    = 6
)

// SoakState is what a bastion's process holds.
type SoakState struct {
	Goroutines int    `json:"goroutines"`
	Heap       uint64 `json:"heap_bytes"`
	Resident   uint64 `json:"resident_bytes"`
	Sessions   int    `json:"sessions"`
	HalfOpen   int    `json:"half_open"`
}

// SoakReport compares a bastion after many sessions with what it was.
type SoakReport struct {
	Seconds int              `json:"seconds"`
	Counts  map[string]int64 `json:"counts"` // of each way in which a session was opened and dropped
	Before  SoakState        `json:"before"`
	After   SoakState        `json:"after"`
	Good    bool             `json:"good"`
}

// state asks the bastion over its control socket.
func (r *running) state(ctx context.Context) (s SoakState, err error) {
	out, err := exec.CommandContext(ctx, r.lab.path("bastion"), "status", "--config", filepath.Join(r.dir, "bastion.toml"), "-o", "json").Output()
	if err != nil {
		return s, fmt.Errorf("asking for the status: %w", err)
	}
	var status struct {
		Goroutines int
		Heap       uint64 `json:"heap_bytes"`
		Sessions   []struct{}
		More       int                 `json:"more_sessions"`
		HalfOpen   struct{ Total int } `json:"half_open"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return s, fmt.Errorf("reading the status: %w", err)
	}
	// `ip netns exec` becomes the program that it runs: the process is the bastion's own.
	kib, err := r.resident()
	return SoakState{Goroutines: status.Goroutines, Heap: status.Heap, Resident: uint64(kib) << 10, Sessions: len(status.Sessions) + status.More, HalfOpen: status.HalfOpen.Total}, err
}

// soaking is a way to open and drop a session.
type soaking struct {
	name string
	run  func(ctx context.Context, r *running, i int) error
}

var soakings = []soaking{
	{"closed in order", func(ctx context.Context, r *running, i int) error {
		c, err := r.login(ctx, i%engineers, netip.Addr{})
		if err != nil {
			return err
		}
		return c.Close()
	}},
	{"jump, echo, closed", func(ctx context.Context, r *running, i int) error {
		c, err := r.login(ctx, i%engineers, netip.Addr{})
		if err != nil {
			return err
		}
		defer c.Close()
		t, err := c.Dial("tcp", fmt.Sprintf("%s:%d", r.target(), targetPort))
		if err != nil {
			return err
		}
		if _, err := t.Write(make([]byte, 100_000)); err != nil {
			return err
		}
		_, err = io.ReadFull(t, make([]byte, 100_000))
		return errors.Join(err, t.Close())
	}},
	{"jump, dropped with bytes on the way", func(ctx context.Context, r *running, i int) error {
		return r.raw(ctx, i, func(c *rawssh.Client) {
			c.Write(soakJump(r.target()))
			if packet, err := c.Expect(91); err == nil {
				for range 20 {
					c.Write(append(append([]byte{94}, packet[5:9]...), append([]byte{0, 0, 16, 0}, make([]byte, 4096)...)...))
				}
			}
		})
	}},
	{"bad packet and many behind it", func(ctx context.Context, r *running, i int) error {
		return r.raw(ctx, i, func(c *rawssh.Client) {
			for range 100 {
				if c.Write([]byte{97, 0, 0, 0, 99}) != nil {
					break
				}
			}
		})
	}},
	{"new keys begun and left", func(ctx context.Context, r *running, i int) error {
		return r.raw(ctx, i, func(c *rawssh.Client) { c.Write(rawssh.KeyInit()) })
	}},
	{"silent, and gone before a login", func(ctx context.Context, r *running, i int) error {
		conn, err := r.dial(ctx, crowdAddress(i))
		if err != nil {
			return nil // it may be penalised
		}
		return conn.Close()
	}},
	{"keys exchanged, bad packets, never in", func(ctx context.Context, r *running, i int) error {
		conn, err := r.dial(ctx, crowdAddress(i))
		if err != nil {
			return nil
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(loginLimit))
		c, err := rawssh.Handshake(conn, rawssh.Offer{})
		if err != nil {
			return nil
		}
		for range 50 {
			if c.Write([]byte{90}) != nil {
				break
			}
		}
		return nil
	}},
}

// raw logs in with raw packets, does something, and drops the connection with a reset.
func (r *running) raw(ctx context.Context, i int, do func(c *rawssh.Client)) error {
	conn, err := r.dial(ctx, netip.Addr{})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(loginLimit))
	c, err := rawssh.Handshake(conn, rawssh.Offer{})
	if err != nil {
		return err
	}
	if err := c.Login(r.user(i%engineers), r.lab.keys[i%engineers].Signer(softkey.Always)); err != nil {
		return err
	}
	do(c)
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	return nil
}

func soakJump(target string) []byte {
	return ssh.Marshal(struct {
		Kind              string `sshtype:"90"`
		Mine, Window, Max uint32
		Host              string
		Port              uint32
		Origin            string
		OriginPort        uint32
	}{"direct-tcpip", 0, 1 << 20, 32 << 10, target, targetPort, "127.0.0.1", 1})
}

// Soak has many sessions opened and dropped, in every way of soakings, for so long, at a real bastion with its policy and its log, and compares what the process holds
// before and after. It needs root, the go command inside the module, and ip.
func Soak(ctx context.Context, d time.Duration, log io.Writer) (report SoakReport, err error) {
	if os.Geteuid() != 0 {
		return report, errors.New("soaking the bastion: it needs root, to make network namespaces")
	}
	ctx, cancel := context.WithTimeout(ctx, d+5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "mayfly-soak-")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := build(ctx, dir, map[string]string{"bastion": "mayfly/bastion/cmd/bastion"}); err != nil {
		return report, err
	}
	lab, err := newSSHLab(ctx, dir)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	var echoes sync.WaitGroup
	echoes.Go(func() { echoAll(lab.target) })
	defer func() { lab.target.Close(); echoes.Wait(); lab.target = nil }()
	r, err := lab.start(ctx, ownServer{}, limits{})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.end()) }()

	// Each way once, and the tables and pools that a first session fills are there.
	counts := make([]atomic.Int64, len(soakings))
	warm := min(d/4, 30*time.Second)
	if err := r.soak(ctx, warm, counts); err != nil {
		return report, err
	}
	if report.Before, err = r.settled(ctx); err != nil {
		return report, err
	}
	fmt.Fprintf(log, "soak: before: %+v\n", report.Before)
	for i := range counts {
		counts[i].Store(0)
	}
	if err := r.soak(ctx, d, counts); err != nil {
		return report, err
	}
	if report.After, err = r.settled(ctx); err != nil {
		return report, err
	}
	fmt.Fprintf(log, "soak: after: %+v\n", report.After)
	report.Seconds, report.Counts = int(d.Seconds()), map[string]int64{}
	for i, s := range soakings {
		report.Counts[s.name] = counts[i].Load()
	}
	b, a := report.Before, report.After
	report.Good = a.Sessions == 0 && a.HalfOpen == 0 && a.Goroutines <= b.Goroutines+mostGoroutines && a.Heap <= b.Heap+mostHeap && a.Resident <= b.Resident+mostResident
	return report, nil
}

// soak opens and drops sessions for a time.
func (r *running) soak(ctx context.Context, d time.Duration, counts []atomic.Int64) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	until := time.Now().Add(d)
	var group sync.WaitGroup
	for range soakWorkers {
		group.Go(func() {
			for i := 0; ctx.Err() == nil && time.Now().Before(until); i++ {
				n := rand.IntN(len(soakings))
				if err := soakings[n].run(ctx, r, rand.IntN(1000)); err != nil {
					stop(fmt.Errorf("%s: %w", soakings[n].name, err))
					return
				}
				counts[n].Add(1)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// settled waits until nobody is in and the goroutines do not become fewer any more, and returns what is left.
func (r *running) settled(ctx context.Context) (SoakState, error) {
	limit := time.Now().Add(soakSettle)
	var best SoakState
	for quiet := 0; ; {
		s, err := r.state(ctx)
		if err != nil {
			return s, err
		}
		if best.Goroutines > 0 && s.Goroutines >= best.Goroutines && s.Heap >= best.Heap && s.Sessions == 0 && s.HalfOpen == 0 {
			quiet++
		} else {
			best, quiet = s, 0
		}
		if quiet >= 10 || time.Now().After(limit) {
			return s, nil
		}
		if err := wait(ctx, time.Second); err != nil {
			return s, err
		}
	}
}

// echoAll sends back what each connection gets, until the listener closes.
func echoAll(l net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(loginLimit))
			io.Copy(conn, conn)
		})
	}
}

// WriteTable prints the report for people.
func (s SoakReport) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, way := range soakings {
		fmt.Fprintf(w, "%s\t%d\n", way.name, s.Counts[way.name])
	}
	fmt.Fprintf(w, "\nprocess\tbefore\tafter\tmost\n")
	fmt.Fprintf(w, "goroutines\t%d\t%d\t%d\n", s.Before.Goroutines, s.After.Goroutines, s.Before.Goroutines+mostGoroutines)
	fmt.Fprintf(w, "heap KiB\t%d\t%d\t%d\n", s.Before.Heap>>10, s.After.Heap>>10, (s.Before.Heap+mostHeap)>>10)
	fmt.Fprintf(w, "resident KiB\t%d\t%d\t%d\n", s.Before.Resident>>10, s.After.Resident>>10, (s.Before.Resident+mostResident)>>10)
	fmt.Fprintf(w, "sessions, half open\t%d, %d\t%d, %d\t0, 0\n", s.Before.Sessions, s.Before.HalfOpen, s.After.Sessions, s.After.HalfOpen)
	return w.Flush()
}
