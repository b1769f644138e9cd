package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// orphanLife is how long a machine may hold whose papers cannot be read.
	orphanLife   = time.Hour
	deadlineTick = time.Second
	// lastDrain is how long before its end a machine that nobody drained lets its users go; never more than a tenth of its life.
	lastDrain = time.Minute
)

// deadline is the end of life in CLOCK_BOOTTIME, which runs from the kernel's start, is never set, and does not stop in a
// suspend. What was a time of day is converted once, by the clock that the stub has checked: whoever sets the clock later moves nothing.
type deadline struct {
	at    atomic.Int64
	known atomic.Bool // it is the papers'
	food  atomic.Pointer[func()]
}

// feed has the watch say each deadlineTick that it lives.
func (d *deadline) feed(dogs func()) { d.food.Store(&dogs) }

func newDeadline() *deadline {
	d := new(deadline)
	d.at.Store(int64(orphanLife))
	return d
}

// life replaces the bound of a machine without papers by the papers' own. It works once.
func (d *deadline) life(life time.Duration) {
	if d.known.CompareAndSwap(false, true) {
		d.at.Store(int64(life))
	}
}

// lifeUntil is how long after its boot a machine ends that may live for this long, and not beyond end. up is the time since boot, at now.
func lifeUntil(life time.Duration, end, now time.Time, up time.Duration) time.Duration {
	return max(0, min(life, up+end.Sub(now)))
}

// extend moves the end, only ever to a later one.
func (d *deadline) extend(to time.Duration) {
	for {
		at := d.at.Load()
		if int64(to) <= at || d.at.CompareAndSwap(at, int64(to)) {
			return
		}
	}
}

func (d *deadline) left(up time.Duration) time.Duration { return time.Duration(d.at.Load()) - up }

// uptime is the time since the kernel started.
func uptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("reading CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// since counts from now on.
func since(clock func() (time.Duration, error)) func() (time.Duration, error) {
	began, first := clock()
	return func() (time.Duration, error) {
		now, err := clock()
		return now - began, errors.Join(first, err)
	}
}

// drainLead is how long before its end a life of this length lets its users go.
func drainLead(life time.Duration) time.Duration { return min(lastDrain, life/10) }

// watch calls soon once, a little before the end, and then end. A clock that cannot be read is the end.
func (d *deadline) watch(ctx context.Context, now func() (time.Duration, error), soon func(time.Duration), end func(string)) {
	tick := time.NewTicker(deadlineTick)
	defer tick.Stop()
	told := false
	for {
		up, err := now()
		if err != nil {
			end(err.Error())
			return
		}
		if feed := d.food.Load(); feed != nil {
			(*feed)()
		}
		left := d.left(up)
		if left <= 0 {
			end("end of life")
			return
		}
		if !told && left <= drainLead(time.Duration(d.at.Load())) {
			told = true
			soon(left)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
