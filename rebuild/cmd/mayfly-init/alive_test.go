package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/join"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		up := func() (time.Duration, error) { return time.Since(began), nil }
		d := newDeadline()
		d.life(20 * time.Minute)
		d.life(40 * time.Minute) // nobody extends it
		var soon, ended time.Duration
		d.watch(t.Context(), up, func(time.Duration) { soon = time.Since(began) }, func(string) { ended = time.Since(began) })
		if soon != 19*time.Minute || ended != 20*time.Minute {
			t.Errorf("told at %s, ended at %s; want 19m and 20m", soon, ended)
		}
	})
}

func TestLifeUntil(t *testing.T) {
	const up = 30 * time.Second
	for _, tt := range []struct {
		life time.Duration
		end  time.Duration // from now
		want time.Duration
	}{
		{time.Hour, 2 * time.Hour, time.Hour},
		{2 * time.Hour, time.Hour, time.Hour + up}, // the ticket's end comes first
		{time.Hour, time.Hour - up, time.Hour},
		{time.Hour, -time.Minute, 0}, // over before it began
	} {
		if got := lifeUntil(tt.life, testNow.Add(tt.end), testNow, up); got != tt.want {
			t.Errorf("%s, ends in %s: got %s, want %s", tt.life, tt.end, got, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := newDeadline()
		d.life(lifeUntil(24*time.Hour, time.Now().Add(20*time.Minute), time.Now(), 0))
		var ended time.Duration
		d.watch(t.Context(), func() (time.Duration, error) { return time.Since(began), nil }, func(time.Duration) {}, func(string) { ended = time.Since(began) })
		if ended != 20*time.Minute {
			t.Errorf("ended after %s, want 20m", ended)
		}
	})
}

// The watch of the deadline feeds the watchdogs, each tick, until it ends the machine.
func TestDeadlineFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, fed := time.Now(), 0
		d := newDeadline()
		d.life(time.Minute)
		d.feed(func() { fed++ })
		d.watch(t.Context(), func() (time.Duration, error) { return time.Since(began), nil }, func(time.Duration) {}, func(string) {})
		if fed != 61 {
			t.Errorf("fed %d times in a minute of ticks of %s", fed, deadlineTick)
		}
	})
}

func TestDeadlineWithoutPapers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var ended time.Duration
		newDeadline().watch(t.Context(), func() (time.Duration, error) { return time.Since(began), nil }, func(time.Duration) {}, func(string) { ended = time.Since(began) })
		if ended != orphanLife {
			t.Errorf("ended after %s, want %s", ended, orphanLife)
		}
	})
}

func TestDeadlineClockFails(t *testing.T) {
	ended := false
	newDeadline().watch(t.Context(), func() (time.Duration, error) { return 0, errors.New("x") }, func(time.Duration) {}, func(string) { ended = true })
	if !ended {
		t.Error("a clock that cannot be read is no end")
	}
}

func TestDrainLead(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{24 * time.Hour: time.Minute, 2 * time.Minute: 12 * time.Second, 0: 0} {
		if got := drainLead(life); got != want {
			t.Errorf("%s: got %s, want %s", life, got, want)
		}
	}
}

func TestRenewAt(t *testing.T) {
	for end, want := range map[time.Duration]time.Duration{
		time.Hour:       30 * time.Minute,
		4 * time.Second: leastRenewWait, // never in a tight loop
		-time.Hour:      leastRenewWait,
	} {
		if got := renewAt(testNow, testNow.Add(end)).Sub(testNow); got != want {
			t.Errorf("%s: got %s, want %s", end, got, want)
		}
	}
}

// fakeService ends when it is told to, or by a signal.
type fakeService struct {
	mu       sync.Mutex
	starts   []time.Time
	signals  []unix.Signal
	done     chan unix.WaitStatus
	fail     error
	stubborn bool // ignores SIGTERM
}

func (f *fakeService) start(spec) (process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starts = append(f.starts, time.Now())
	if f.fail != nil {
		return process{}, f.fail
	}
	f.done = make(chan unix.WaitStatus, 1)
	return process{pid: 100 + len(f.starts), done: f.done}, nil
}

func (f *fakeService) kill(_ int, s unix.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signals = append(f.signals, s)
	if s == unix.SIGKILL || s == unix.SIGTERM && !f.stubborn {
		f.done <- unix.WaitStatus(s)
	}
	return nil
}

func (f *fakeService) exit(code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done <- unix.WaitStatus(code << 8)
}

func TestSupervisorRestartsWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeService)
		s := newSupervisor(f.start)
		s.signal = f.kill
		ctx, cancel := context.WithCancel(t.Context())
		s.run(ctx, spec{name: "x"})
		for range 3 {
			synctest.Wait()
			f.exit(1)
			synctest.Wait()
			if got := s.state("x"); got != "exited with 1" {
				t.Errorf("state %q", got)
			}
			s.answered("x", nil)
			if got := s.state("x"); got != "exited with 1" {
				t.Errorf("a dead service answered: %q", got)
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		s.answered("x", nil)
		if states, ready := s.all(); !ready || states["x"] != stateRunning {
			t.Errorf("got %v, %v", states, ready)
		}
		s.answered("x", errors.New("silent"))
		if _, ready := s.all(); ready {
			t.Error("ready though it does not answer")
		}
		if err := s.reload("x"); err != nil {
			t.Error(err)
		}
		cancel()
		s.wg.Wait()
		var gaps []time.Duration
		for i := 1; i < len(f.starts); i++ {
			gaps = append(gaps, f.starts[i].Sub(f.starts[i-1]))
		}
		if len(gaps) != 3 || gaps[0] < firstPause || gaps[2] < gaps[0] {
			t.Errorf("pauses %v", gaps)
		}
		if got := f.signals[len(f.signals)-1]; got != unix.SIGTERM {
			t.Errorf("stopped with %v", got)
		}
	})
}

func TestSupervisorKillsWhatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeService{stubborn: true}
		s := newSupervisor(f.start)
		s.signal = f.kill
		ctx, cancel := context.WithCancel(t.Context())
		s.run(ctx, spec{name: "x"})
		synctest.Wait()
		cancel()
		s.wg.Wait()
		if len(f.signals) != 2 || f.signals[1] != unix.SIGKILL {
			t.Errorf("signals %v", f.signals)
		}
	})
}

func TestSupervisorCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeService{fail: errors.New("no such file")}
		s := newSupervisor(f.start)
		ctx, cancel := context.WithCancel(t.Context())
		s.run(ctx, spec{name: "x"})
		time.Sleep(10 * time.Minute)
		cancel()
		s.wg.Wait()
		if n := len(f.starts); n < 40 || n > 60 {
			t.Errorf("%d tries in ten minutes", n)
		}
		if got := s.state("x"); got != "no such file" {
			t.Errorf("state %q", got)
		}
	})
}

// TestReaper runs real children. No other test of this package may wait for a process while it runs.
func TestReaper(t *testing.T) {
	r, err := newReaper(false)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.start(spec{path: "/bin/sh", args: []string{"-c", "exit 7"}})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(10 * time.Second); ; {
		r.reap()
		select {
		case status := <-p.done:
			if got := ended(status); got != "exited with 7" {
				t.Errorf("got %q", got)
			}
			return
		case <-limit:
			t.Fatal("the child was not reaped")
		case <-tick.C:
		}
	}
}

func TestReaperCannotStart(t *testing.T) {
	r, err := newReaper(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.start(spec{path: "/nowhere"}); err == nil {
		t.Error("started a program that is not there")
	}
}

func TestPowerPressed(t *testing.T) {
	event := func(kind, key uint16, value uint32) []byte {
		b := make([]byte, inputEventSize-8)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, key)
		return binary.NativeEndian.AppendUint32(b, value)
	}
	for _, tt := range []struct {
		e    []byte
		want bool
	}{
		{event(eventKey, keyPower, 1), true},
		{event(eventKey, keyPower, 0), false},
		{event(eventKey, 30, 1), false},
		{event(0, 0, 0), false},
	} {
		if got := powerPressed(tt.e); got != tt.want {
			t.Errorf("%v: got %v", tt.e, got)
		}
	}
	path := filepath.Join(t.TempDir(), "event0")
	if err := os.WriteFile(path, append(event(0, 0, 0), event(eventKey, keyPower, 1)...), 0o600); err != nil {
		t.Fatal(err)
	}
	pressed := make(chan struct{})
	if err := watchButtons(filepath.Dir(path), func() { close(pressed) }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pressed:
	case <-time.After(10 * time.Second):
		t.Error("the button was not seen")
	}
}

func TestConsoleSaysPlainText(t *testing.T) {
	var b bytes.Buffer
	(&console{w: &b}).stage("refused: %s", "x\x1b[2J\ny\x00é")
	if got, want := b.String(), "mayfly-init: refused: x [2J y  \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClip(t *testing.T) {
	if got := clip("a\nb\xffc", 4); got != "a b " {
		t.Errorf("got %q", got)
	}
	if r := (join.Report{Ticket: []byte("t"), Signature: []byte("s"), Stage: "init", Reason: codeDisk, Detail: clip(string(make([]byte, 4096)), join.MaxDetail)}); r.Check() != nil {
		t.Errorf("a clipped detail is refused: %v", r.Check())
	}
}
