package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/hint"
	"mayfly/testenv/dnsroot"
	"mayfly/testenv/netlab"
	"mayfly/testenv/supervise"
	"mayfly/testenv/target"
)

func dialHere(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func TestAskTarget(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := netip.MustParseAddrPort(l.Addr().String())
	srv := target.Server()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	if err := askWeb(t.Context(), dialHere, web); err != nil {
		t.Error(err)
	}
	srv.Close()
	<-served
	if err := askWeb(t.Context(), dialHere, web); err == nil {
		t.Error("a target that is gone answered")
	}

	signed, err := dnsroot.Sign(zoneRecords(), rootServer, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root, err := dnsroot.Load(signed.Zone)
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(free.Addr().String())
	free.Close()
	ctx, stop := context.WithCancel(t.Context())
	listens, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- root.Serve(ctx, at.String(), func() { close(listens) }) }()
	select {
	case <-listens:
	case err := <-ended:
		t.Fatal(err)
	}
	if err := askRoot(t.Context(), dialHere, at, netlab.WebTarget); err != nil {
		t.Error(err)
	}
	if err := askRoot(t.Context(), dialHere, at, netlab.DNSRoot); err == nil {
		t.Error("a wrong answer was taken")
	}
	stop()
	<-ended
	if err := askRoot(t.Context(), dialHere, at, netlab.WebTarget); err == nil {
		t.Error("a name server that is gone answered")
	}
}

// TestUnanswered: only silence, or no way, shows that somebody is out of reach.
func TestUnanswered(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		good bool
	}{
		{"time-out", os.ErrDeadlineExceeded, true},
		{"the context's deadline", context.DeadlineExceeded, true},
		{"no route", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, true},
		{"unreachable", fmt.Errorf("dialling: %w", syscall.EHOSTUNREACH), true},
		{"reset", syscall.ECONNREFUSED, false},
		{"interrupted", context.Canceled, false},
		{"no such namespace", errors.New("opening network namespace"), false},
	} {
		if err := unanswered(nil, test.err); (err == nil) != test.good {
			t.Errorf("%s: got %v, want good %v", test.name, err, test.good)
		}
	}
	a, b := net.Pipe()
	defer b.Close()
	if err := unanswered(a, nil); err == nil {
		t.Error("a connection was taken for silence")
	}
}

func TestCarried(t *testing.T) {
	for _, test := range []struct {
		name    string
		ok      int
		slowest float64
		took    time.Duration
		good    bool
	}{
		{"as usual", 224, 0.3, 70 * time.Second, true},
		{"a few", 6, 0.3, 70 * time.Second, false},
		{"few for so long", 60, 0.3, 5 * time.Minute, false},
		{"stuck for a while", 224, 5.5, 70 * time.Second, false},
		{"nothing", 0, 0, 0, false},
	} {
		if err := carried(test.ok, test.slowest, test.took); (err == nil) != test.good {
			t.Errorf("%s: got %v, want good %v", test.name, err, test.good)
		}
	}
}

// TestPartOfAFleetIsNotUp takes away one program or machine after the other from a fleet that is whole.
func TestPartOfAFleetIsNotUp(t *testing.T) {
	for name, lay := range map[string][]string{"software keys": nil, "cards": {"cards/issuer"}, "cards, up for a user": {"cards/issuer", "own/agent.sock"}} {
		t.Run(name, func(t *testing.T) {
			e := &environment{dir: t.TempDir()}
			for _, file := range lay {
				if err := errors.Join(os.MkdirAll(filepath.Dir(e.path(file)), 0o700), os.WriteFile(e.path(file), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if got, want := slices.Contains(e.lasting(), "agent-"+engineer), lay == nil; got != want {
				t.Errorf("a software authenticator of the engineer's: got %v, want %v", got, want)
			}
			if got, want := slices.Contains(e.lasting(), "card-"+engineer), lay != nil; got != want {
				t.Errorf("a card of the engineer's: got %v, want %v", got, want)
			}
			if got, want := slices.Contains(e.lasting(), "agent-own"), len(lay) == 2; got != want {
				t.Errorf("an agent of the user's: got %v, want %v", got, want)
			}
			partIsNotUp(t, e)
		})
	}
}

func partIsNotUp(t *testing.T, e *environment) {
	e.table.Dir = e.dir
	var programs []*supervise.Process
	lasting := e.lasting()
	for _, name := range lasting {
		p, err := e.table.Start(name, e.command(t.Context(), "sleep", "60"), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.End(); err != nil {
				t.Error(err)
			}
		})
		programs = append(programs, p)
	}
	var running []supervise.Record
	for _, m := range machines {
		running = append(running, supervise.Record{Command: []string{"/usr/bin/qemu-system-x86_64", "-netdev", "tap,ifname=" + m.Tap + ",script=no"}})
	}
	if err := e.whole(t.Context(), running); err != nil {
		t.Errorf("whole: %v", err)
	}
	for i, m := range machines {
		others := append(append([]supervise.Record{{Command: []string{"sleep"}}}, running[:i]...), running[i+1:]...)
		if err := e.whole(t.Context(), others); err == nil || !strings.Contains(err.Error(), "machine "+m.Name) || hint.Of(err) == "" {
			t.Errorf("without %s: got %v, hint %q", m.Name, err, hint.Of(err))
		}
	}
	for i, name := range lasting {
		if err := programs[i].End(); err != nil {
			t.Fatal(err)
		}
		if err := e.whole(t.Context(), running); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: got %v", name, err)
		}
	}
}

// TestNoSecretOnSudosCommandLine: what is kept is named, never said.
func TestNoSecretOnSudosCommandLine(t *testing.T) {
	env := map[string]string{"HTTPS_PROXY": "http://me:secret@proxy:3128", "GOPROXY": "https://me:secret@modules", "TERM": "dumb"}
	args := sudoArgs(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, []string{"PATH=/bin"})
	if got, want := strings.Join(args, " "), "-n --preserve-env=GOPROXY,HTTPS_PROXY,TERM env PATH=/bin"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := strings.Join(sudoArgs(func(string) (string, bool) { return "", false }, nil), " "), "-n env"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
