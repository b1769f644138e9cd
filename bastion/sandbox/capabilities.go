package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// dropCapabilities gives up every capability on every thread: ambient, bounding, permitted, effective and inheritable. Only
// filterCapability may stay, for nothing that it could execute.
func dropCapabilities(keep bool) error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("clearing ambient capabilities: %w", errno)
	}
	may, err := effective(unix.CAP_SETPCAP)
	if err != nil {
		return err
	}
	// Without CAP_SETPCAP the bounding set stays; it matters to programs that are executed only, and left is.
	for c := uintptr(0); may && c <= 63; c++ {
		have, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // beyond the kernel's last capability
		}
		if err != nil {
			return fmt.Errorf("reading bounding set: %w", err)
		}
		if have == 0 {
			continue
		}
		if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0); errno != 0 {
			return fmt.Errorf("dropping capability %d from bounding set: %w", c, errno)
		}
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	left := new([2]unix.CapUserData)
	if keep {
		left[0] = unix.CapUserData{Effective: 1 << filterCapability, Permitted: 1 << filterCapability}
	}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(left)), 0)
	runtime.KeepAlive(header)
	runtime.KeepAlive(left)
	if errno != 0 {
		return fmt.Errorf("dropping capabilities: %w", errno)
	}
	return nil
}

func effective(capability int) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("reading capabilities: %w", err)
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0, nil
}

// filterCapability is what some kernels want of a process that puts a classic filter on its own socket; others let everybody. It can also
// change the machine's network, by netlink and by device control: who keeps it gets neither (socketCheck).
const filterCapability = unix.CAP_NET_ADMIN

// filterNeedsCapability says whether this process may filter its sockets by that capability only. It tries with nothing in effect on
// this thread, which is as before when it returns: a thread that differs from the others would spoil what is done on all of them.
func filterNeedsCapability() bool {
	if have, err := effective(filterCapability); err != nil || !have {
		return false
	}
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	if err := unix.Capget(&header, &before[0]); err != nil {
		runtime.UnlockOSThread()
		return false
	}
	bare := before
	bare[0].Effective, bare[1].Effective = 0, 0
	if err := unix.Capset(&header, &bare[0]); err != nil {
		runtime.UnlockOSThread()
		return false
	}
	refused := errors.Is(filterSomething(), unix.EPERM)
	if err := unix.Capset(&header, &before[0]); err != nil {
		return refused // and the thread stays locked: it ends with its goroutine
	}
	runtime.UnlockOSThread()
	return refused
}

// filterSomething puts a filter on a socket.
func filterSomething() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
}
