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
func (e *ending) stop(why string) {
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
		e.con.stage("off")
		if e.inContainer {
			exit()
		}
		if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
			e.con.stage("switching off: %v", err)
		}
	})
	select {} // PID 1 must not end
}
