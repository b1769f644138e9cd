package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What engineers may take of a server, so that the VPN goes on beside a fork bomb or a full home. sshd and every session live in one
// control group; besides, each engineer has a bounded number of processes, and a home that only that engineer can fill.
const (
	groupRoot     = "/sys/fs/cgroup"
	sessionsGroup = groupRoot + "/sessions"

	maxProcesses     = 1024     // of all engineers, with sshd
	maxUserProcesses = 128      // of one
	maxOpenFiles     = 1024     // of a process
	memoryShare      = 4        // the group gets one of so many parts of the machine's memory,
	minMemory        = 96 << 20 // and no less than what one engineer's files can take, with room for sessions
	sessionsWeight   = 20       // of the processor's time; every service that is not in the group counts 100
	homeOptions      = "mode=0700,size=8m,nr_inodes=2k"
	groupControllers = "+cpu +memory +pids"
)

// userLimits bound an engineer's processes. sshd has them and hands them on; root is not counted.
var userLimits = []struct {
	resource int
	most     uint64
}{
	{unix.RLIMIT_NPROC, maxUserProcesses},
	{unix.RLIMIT_NOFILE, maxOpenFiles},
	{unix.RLIMIT_CORE, 0},
}

// sessionsMemory is the group's share of the machine's memory. What its processes write to tmpfs counts.
func sessionsMemory(total uint64) uint64 { return max(total/memoryShare, minMemory) }

// limitSessions makes the group, which mayfly-init starts sshd in.
func limitSessions() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("reading the machine's memory: %w", err)
	}
	return makeGroup(groupRoot, sessionsGroup, sessionsMemory(uint64(info.Totalram)*uint64(info.Unit)))
}

// makeGroup makes a control group with its bounds, and reads each back.
func makeGroup(root, group string, memory uint64) error {
	if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte(groupControllers), 0o644); err != nil {
		return fmt.Errorf("handing on control of memory and processes: %w", err)
	}
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making the sessions' control group: %w", err)
	}
	page := uint64(os.Getpagesize())
	for _, s := range []struct{ name, value string }{
		{"pids.max", strconv.Itoa(maxProcesses)},
		{"memory.max", strconv.FormatUint(memory/page*page, 10)},
		{"cpu.weight", strconv.Itoa(sessionsWeight)},
	} {
		path := filepath.Join(group, s.name)
		if err := os.WriteFile(path, []byte(s.value), 0o644); err != nil {
			return fmt.Errorf("setting %s to %s: %w", s.name, s.value, err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading %s back: %w", s.name, err)
		}
		if strings.TrimSpace(string(got)) != s.value {
			return fmt.Errorf("setting %s to %s: it is %q", s.name, s.value, strings.TrimSpace(string(got)))
		}
	}
	return nil
}

// limitUser bounds a process, and all that it starts, as engineers' are.
func limitUser(pid int) error {
	for _, l := range userLimits {
		if err := unix.Prlimit(pid, l.resource, &unix.Rlimit{Cur: l.most, Max: l.most}, nil); err != nil {
			return fmt.Errorf("limiting process %d: %w", pid, err)
		}
	}
	return nil
}

// makeHome makes an engineer's home, private and empty, with a bound of its own: who fills it fills nobody else's.
func makeHome(dir, name string, uid int) error {
	home := filepath.Join(dir, name)
	if err := makeDirectory(home, 0o755, 0); err != nil {
		return err
	}
	there, err := mountPoint(home)
	if err != nil || there {
		return err
	}
	options := fmt.Sprintf("%s,uid=%d,gid=%d", homeOptions, uid, uid)
	if err := unix.Mount("tmpfs", home, "tmpfs", homeful, options); err != nil {
		return fmt.Errorf("making the home of %s: %w", name, err)
	}
	return nil
}

// removeHome gives the memory back.
func removeHome(dir, name string) error {
	home := filepath.Join(dir, name)
	err := unix.Unmount(home, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // not mounted, not there
		return fmt.Errorf("removing the home of %s: %w", name, err)
	}
	if err := os.RemoveAll(home); err != nil {
		return fmt.Errorf("removing the home of %s: %w", name, err)
	}
	return nil
}
