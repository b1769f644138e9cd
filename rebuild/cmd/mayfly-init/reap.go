package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper waits for every child, those that it started and orphans that the kernel gave to PID 1. Nothing else in this program
// waits for processes.
type reaper struct {
	mu       sync.Mutex // held from a start until the pid is noted, and over each wait
	children map[int]chan<- unix.WaitStatus
	null     *os.File
	group    string // control group of services with engineers' sessions; none in a container
}

func newReaper(inContainer bool) (*reaper, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	r := &reaper{children: make(map[int]chan<- unix.WaitStatus), null: null, group: sessionsGroup}
	if inContainer {
		r.group = ""
	}
	return r, nil
}

// start runs a program in a session of its own, with nothing to read, and all that it says to nowhere, or to the one reader of its
// stderr that it has.
func (r *reaper) start(s spec) (process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	null := r.null.Fd()
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin", "LANG=C"},
		Files: []uintptr{null, null, null},
		Sys:   &syscall.SysProcAttr{Setsid: true, AmbientCaps: s.caps},
	}
	if s.said != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return process{}, fmt.Errorf("starting %s: %w", s.path, err)
		}
		defer func() {
			// The program has its own end by now; where it did not start, the reader finds the end at once.
			_ = w.Close()
			go s.said(r)
		}()
		attr.Files[2] = w.Fd()
	}
	if s.uid != 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}
	}
	if s.users && r.group != "" {
		group, err := os.Open(r.group)
		if err != nil {
			return process{}, fmt.Errorf("starting %s: %w", s.path, err)
		}
		defer group.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	pid, err := syscall.ForkExec(s.path, append([]string{s.path}, s.args...), attr)
	if err != nil {
		return process{}, fmt.Errorf("starting %s: %w", s.path, err)
	}
	if s.users {
		// Before anybody can have logged in: a start is not over before the program has been loaded, and sshd has yet to read its keys.
		if err := limitUser(pid); err != nil {
			return process{}, fmt.Errorf("starting %s: %w", s.path, errors.Join(err, unix.Kill(pid, unix.SIGKILL)))
		}
	}
	done := make(chan unix.WaitStatus, 1)
	r.children[pid] = done
	return process{pid: pid, done: done}, nil
}

// run reaps whenever a child may have ended, until children is closed.
func (r *reaper) run(children <-chan os.Signal) {
	for range children {
		r.reap()
	}
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if done, ok := r.children[pid]; ok {
			delete(r.children, pid)
			done <- status
		}
	}
}
