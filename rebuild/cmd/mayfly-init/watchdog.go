package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watchdogs. Each ends the machine by itself when this process has not been heard for watchdogSeconds, and none can be stopped.
const (
	watchdogSeconds = 60
	watchdogFiles   = "/dev/watchdog[0-9]*"
	maxWatchdogs    = 4
)

// Requests of linux/watchdog.h, for x86 and ARM.
const (
	getSupport = 0x80285700 // WDIOC_GETSUPPORT
	setTimeout = 0xc0045706 // WDIOC_SETTIMEOUT
	getTimeout = 0x80045707 // WDIOC_GETTIMEOUT
)

// watchdogInfo is struct watchdog_info.
type watchdogInfo struct {
	options  uint32
	firmware uint32
	identity [32]byte
}

// watchdogs are all that the machine has: hardware ends it also when the kernel hangs, the kernel's own when this process does.
type watchdogs struct {
	mu    sync.Mutex // guards files
	files []*os.File
	names []string
}

// armWatchdogs opens and so starts every watchdog that there is. One that cannot be armed is told of and left.
func armWatchdogs(pattern string, seconds int) (*watchdogs, error) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	w := new(watchdogs)
	var errs []error
	for _, path := range paths[:min(len(paths), maxWatchdogs)] {
		name, f, err := armWatchdog(path, seconds)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		w.files, w.names = append(w.files, f), append(w.names, name)
	}
	return w, errors.Join(errs...)
}

func armWatchdog(path string, seconds int) (name string, f *os.File, err error) {
	if f, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil { // armed from here on
		return "", nil, err
	}
	var info watchdogInfo
	if err := control(f, getSupport, unsafe.Pointer(&info)); err != nil {
		return "", nil, fmt.Errorf("asking what it is: %w", err)
	}
	wish, got := int32(seconds), int32(0)
	// One that keeps its own time is asked which that is.
	_ = control(f, setTimeout, unsafe.Pointer(&wish))
	if err := control(f, getTimeout, unsafe.Pointer(&got)); err != nil {
		return "", nil, fmt.Errorf("asking for its time: %w", err)
	}
	if got <= 0 || int(got) < min(seconds, leastWatchdog) {
		return "", nil, fmt.Errorf("its time is %d s, not %d", got, seconds)
	}
	name, _, _ = strings.Cut(string(info.identity[:]), "\x00")
	return fmt.Sprintf("%s, %d s", clip(name, len(info.identity)), got), f, nil
}

// leastWatchdog is the shortest time of a watchdog that keeps its own, in seconds: it is fed each deadlineTick.
const leastWatchdog = 5

func control(f *os.File, request uintptr, argument unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(argument)); e != 0 {
		return e
	}
	return nil
}

// feed says that this process lives. What is written is never the letter that would stop one.
func (w *watchdogs) feed() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.files {
		_, _ = f.Write([]byte{0}) // a watchdog that is not fed does the rest
	}
}
