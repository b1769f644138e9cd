package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cutRounds bounds how often an engineer's processes are looked for: some may have forked in between.
const (
	cutRounds = 20
	cutPause  = 50 * time.Millisecond
)

// cutUser ends every process of an engineer, which ends the sessions, and removes what lies in the home.
func cutUser(name string, uid int) error {
	for round := 0; ; round++ {
		pids, err := processesOf(os.DirFS("/proc"), uid)
		if err != nil {
			return fmt.Errorf("cutting %s's sessions: %w", name, err)
		}
		if len(pids) == 0 {
			break
		}
		if round == cutRounds {
			return fmt.Errorf("cutting %s's sessions: %d processes are still there", name, len(pids))
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("cutting %s's sessions: %w", name, err)
			}
		}
		time.Sleep(cutPause)
	}
	if err := os.RemoveAll(filepath.Join(homeDir, name)); err != nil {
		return fmt.Errorf("removing the home of %s: %w", name, err)
	}
	return nil
}

// processesOf lists the processes whose real or effective user is uid.
func processesOf(proc fs.FS, uid int) ([]int, error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := fs.ReadFile(proc, e.Name()+"/status")
		if err != nil {
			continue // it has ended
		}
		if ownedBy(status, uid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// ownedBy reads the Uid line of /proc/PID/status: real, effective, saved, file system. A zombie has nothing left to cut.
func ownedBy(status []byte, uid int) bool {
	owned, zombie := false, false
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[0] == "Uid:" {
			owned = f[1] == strconv.Itoa(uid) || f[2] == strconv.Itoa(uid)
		}
		if len(f) >= 2 && f[0] == "State:" {
			zombie = f[1] == "Z"
		}
	}
	return owned && !zombie
}
