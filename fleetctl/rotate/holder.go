package rotate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/inventory/store"
)

// A holder's name is CONTROLLER/PID/NONCE, and where this host says enough about its processes, /WHERE/START: the boot of the host with
// its PID namespace, and when the process began. By them another process on the same host sees that a holder is dead.
const (
	bootIDFile   = "/proc/sys/kernel/random/boot_id"
	pidSpace     = "/proc/self/ns/pid"
	startField   = 22 // of /proc/PID/stat, after proc(5), counted from 1
	holderFields = 5
)

// Holder names this process for its claims: no two processes have the same, whatever their controllers are called.
func Holder(controller string) string {
	var nonce [6]byte
	rand.Read(nonce[:]) // never fails
	pid := os.Getpid()
	name := fmt.Sprintf("%s/%d/%s", strings.ReplaceAll(controller, "/", "-"), pid, hex.EncodeToString(nonce[:]))
	where, start := whereProcesses(), startOf(pid)
	if where == "" || start == "" {
		return name // nobody can see whether it lives: its claims end by themselves
	}
	return name + "/" + where + "/" + start
}

// whereProcesses names the space in which a process number means one process: this boot of this kernel and the PID namespace. "" if it cannot be read.
func whereProcesses() string {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return ""
	}
	space, err := os.Readlink(pidSpace)
	number := strings.TrimSuffix(strings.TrimPrefix(space, "pid:["), "]")
	if _, e := strconv.ParseUint(number, 10, 64); err != nil || e != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + "." + number
}

// startOf is when a process began, in ticks since the host's boot; "" if that cannot be read.
func startOf(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, after, ok := bytes.Cut(data[max(0, bytes.LastIndexByte(data, ')')):], []byte(") ")) // what stands before is the process's own choice
	fields := bytes.Fields(after)
	if !ok || len(fields) <= startField-3 {
		return ""
	}
	return string(fields[startField-3])
}

// dead reports whether a holder is a process of this very host that does not exist any more. Whatever is not certain is not dead: another host, another
// boot, another PID namespace, a process that cannot be looked at.
func dead(holder string) bool {
	f := strings.Split(holder, "/")
	if len(f) != holderFields || f[3] == "" || f[3] != whereProcesses() {
		return false
	}
	pid, err := strconv.Atoi(f[1])
	if err != nil || pid <= 1 {
		return false
	}
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) { // also where /proc hides others' processes
		return true
	}
	now := startOf(pid)
	return now != "" && f[4] != "" && now != f[4] // the number is another's by now
}

// bury lets go the claims of holders that are provably dead, so that nobody waits for their end, and returns the others. What the dead process had written
// is in the store, and what it did before it died is read back, as after every death.
func (r *Runner) bury(ctx context.Context, claims []store.Claim) (alive []store.Claim) {
	known := map[string]bool{r.Holder: false}
	for _, c := range claims {
		gone, ok := known[c.Holder]
		if !ok {
			gone = dead(c.Holder)
			known[c.Holder] = gone
		}
		if gone && !strings.HasPrefix(c.Server, store.Shared) && r.Store.Release(ctx, c) == nil {
			r.sayf("%s: its holder %.200s is dead, on this host: its claim is over", c.Server, c.Holder)
			continue
		}
		alive = append(alive, c)
	}
	return alive
}
