package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cutRounds bounds how often an engineer's processes are killed and then looked for: sshd may have begun one more session.
const (
	cutRounds = 20
	cutPause  = 50 * time.Millisecond
)

// cutUser ends every process of an engineer, which ends the sessions, and removes what lies in the home.
func cutUser(name string, uid int) error {
	for round := 0; ; round++ {
		if err := killAll(uid); err != nil {
			return fmt.Errorf("cutting %s's sessions: %w", name, err)
		}
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
		time.Sleep(cutPause)
	}
	return removeHome(homeDir, name)
}

// killAll kills every process of a user at once. Whoever looks for them one by one misses those that start a copy of themselves and
// end; kill(-1) is one step to fork, and reaches what its caller may signal. So a thread becomes that user for it: that thread alone,
// which ends with its goroutine because it stays locked. A system call that is not raw would change the whole program.
func killAll(uid int) error {
	if uid < 1 {
		return fmt.Errorf("user %d is not to be killed", uid)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and its user is the program's to who looks. Held here, it is not the next one's.
			done <- killAll(uid)
			runtime.UnlockOSThread()
			return
		}
		id := uintptr(uid)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
			done <- fmt.Errorf("becoming user %d: %w", uid, e)
			return
		}
		err := unix.Kill(-1, unix.SIGKILL) // everything but PID 1 and this program
		if errors.Is(err, unix.ESRCH) {
			err = nil
		}
		done <- err
	}()
	return <-done
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
