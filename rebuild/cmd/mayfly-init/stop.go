package main

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	servicesLimit = 8 * time.Second
	restLimit     = time.Second
)

// ending stops the machine, once, whoever asks first.
type ending struct {
	con    *console
	once   sync.Once
	cancel context.CancelFunc // ends the machine's work
	wait   func()             // returns when the services have ended; nil before there are any
	mu     sync.Mutex         // guards wait

	inContainer bool
}

func (e *ending) onServices(wait func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wait = wait
}

// stop ends services, then everything, then switches off. It does not return before the machine is off.
func (e *ending) stop(why string) { e.finish(why, false) }

// restart is stop, but for the last step: the machine starts anew, from wherever its firmware boots.
func (e *ending) restart(why string) { e.finish(why, true) }

func (e *ending) finish(why string, again bool) {
	e.once.Do(func() {
		e.con.stage("stop: %s", why)
		e.cancel()
		e.mu.Lock()
		wait := e.wait
		e.mu.Unlock()
		if wait != nil {
			done := make(chan struct{})
			go func() { defer close(done); wait() }()
			select {
			case <-done:
			case <-time.After(servicesLimit):
			}
		}
		// There may be nobody left to signal.
		_ = unix.Kill(-1, unix.SIGTERM)
		time.Sleep(restLimit)
		_ = unix.Kill(-1, unix.SIGKILL)
		last := unix.LINUX_REBOOT_CMD_POWER_OFF
		if again {
			last = unix.LINUX_REBOOT_CMD_RESTART
			e.con.stage("restart")
		} else {
			e.con.stage("off")
		}
		if e.inContainer {
			exit()
		}
		if err := unix.Reboot(last); err != nil {
			e.con.stage("switching off: %v", err)
		}
	})
	select {} // PID 1 must not end
}
