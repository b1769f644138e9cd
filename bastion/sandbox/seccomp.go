package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Specification constants (linux/seccomp.h, struct seccomp_data). The words of an argument lie in the machine's order, which is
// little-endian on both architectures.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16

	retAllow = unix.SECCOMP_RET_ALLOW
	retKill  = unix.SECCOMP_RET_KILL_PROCESS
	retPerm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retNone  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

	socketTypeMask = 0xf // without SOCK_CLOEXEC and SOCK_NONBLOCK
	prSetVMA       = 0x53564d41
	tcpULP         = 31 // TCP_ULP: another protocol under TCP
)

// restrictCalls installs the filter on all threads. It needs no new privileges to be forbidden on this one.
func restrictCalls(rules Rules, netlink bool) error {
	if auditArch == 0 {
		return nil
	}
	program, err := callFilter(rules, netlink, uint32(unix.Getpid()))
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	failed, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_LOG, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno == unix.ENOSYS || errno == unix.EINVAL && !seccompWorks() {
		return nil // the report names it
	}
	if errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	if failed != 0 {
		return fmt.Errorf("filtering system calls: thread %d cannot take the filter", failed)
	}
	return nil
}

// callFilter compiles the lists of calls. A call that is in none of them fails.
func callFilter(rules Rules, netlink bool, self uint32) ([]bpf.RawInstruction, error) {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: retKill},
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}
	if x32 != 0 {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32, SkipFalse: 1}, bpf.RetConstant{Val: retKill})
	}
	on := func(number uint32, then ...bpf.Instruction) {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(then))})
		program = append(program, then...)
	}
	for _, list := range [][]uint32{allowedCalls, allowedHere} {
		for _, number := range list {
			on(number, bpf.RetConstant{Val: retAllow})
		}
	}
	for _, c := range checkedCalls(rules, netlink, self) {
		on(c.number, c.then...)
	}
	for _, list := range [][]uint32{fatalCalls, fatalHere} {
		for _, number := range list {
			on(number, bpf.RetConstant{Val: retKill})
		}
	}
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: firstNew, SkipFalse: 1},
		bpf.RetConstant{Val: retNone},
		bpf.RetConstant{Val: retPerm},
	)
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("compiling filter of system calls: %w", err)
	}
	return raw, nil
}

// checked is a call with the program that decides on its arguments; every path through it returns.
type checked struct {
	number uint32
	then   []bpf.Instruction
}

func checkedCalls(rules Rules, netlink bool, self uint32) []checked {
	return []checked{
		{unix.SYS_SOCKET, socketCheck(rules, netlink)},
		{unix.SYS_SETSOCKOPT, optionCheck()},
		// A segment that carries data with its SYN connects without asking Landlock.
		{unix.SYS_SENDTO, unlessBits(3, unix.MSG_FASTOPEN, retPerm)},
		{unix.SYS_SENDMSG, unlessBits(2, unix.MSG_FASTOPEN, retPerm)},
		// New code is never made: the program has all that it needs.
		{unix.SYS_MMAP, unlessBits(2, unix.PROT_EXEC, retKill)},
		{unix.SYS_MPROTECT, unlessBits(2, unix.PROT_EXEC, retKill)},
		// Threads, and no processes or namespaces. The kernel refuses a thread that asks for a namespace of processes or users itself.
		{unix.SYS_CLONE, []bpf.Instruction{
			argument(0),
			bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.CLONE_THREAD, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces, SkipTrue: 1},
			bpf.RetConstant{Val: retAllow},
			bpf.RetConstant{Val: retKill},
		}},
		// Its flags are in memory, where a filter cannot look; libraries take the older call instead.
		{unix.SYS_CLONE3, []bpf.Instruction{bpf.RetConstant{Val: retNone}}},
		{unix.SYS_TGKILL, only(0, self)},
		{unix.SYS_KILL, only(0, self)},
		{unix.SYS_PRCTL, only(0, prSetVMA)}, // the runtime names its memory
		{unix.SYS_PRLIMIT64, []bpf.Instruction{ // reading, not setting
			argument(2), bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 3},
			upper(2), bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
			bpf.RetConstant{Val: retAllow},
			bpf.RetConstant{Val: retPerm},
		}},
	}
}

const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

func argument(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offArgs + 8*n, Size: 4} }
func upper(n uint32) bpf.Instruction    { return bpf.LoadAbsolute{Off: offArgs + 8*n + 4, Size: 4} }

func unlessBits(arg, bits, otherwise uint32) []bpf.Instruction {
	return []bpf.Instruction{
		argument(arg),
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipTrue: 1},
		bpf.RetConstant{Val: retAllow},
		bpf.RetConstant{Val: otherwise},
	}
}

func only(arg, value uint32) []bpf.Instruction {
	return []bpf.Instruction{
		argument(arg),
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: 1},
		bpf.RetConstant{Val: retAllow},
		bpf.RetConstant{Val: retPerm},
	}
}

// socketCheck allows TCP, the kernel's own list of addresses, and UDP where names are looked up. Multipath TCP would pass by Landlock.
func socketCheck(rules Rules, netlink bool) []bpf.Instruction {
	udp, list := uint32(retPerm), uint32(retPerm)
	if netlink {
		list = retAllow
	}
	if rules.Resolve {
		udp = retAllow
	}
	return []bpf.Instruction{
		argument(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET6, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_NETLINK, SkipTrue: 3},
		argument(2),
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.NETLINK_ROUTE, SkipTrue: 1},
		bpf.RetConstant{Val: list},
		bpf.RetConstant{Val: retPerm},
		argument(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: socketTypeMask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_DGRAM, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SOCK_STREAM, SkipTrue: 6},
		argument(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipTrue: 2},
		bpf.RetConstant{Val: retPerm},
		bpf.RetConstant{Val: udp},
		bpf.RetConstant{Val: retAllow},
		bpf.RetConstant{Val: retPerm},
	}
}

// optionCheck allows options of sockets, TCP and IPv6, but no other protocol under TCP.
func optionCheck() []bpf.Instruction {
	return []bpf.Instruction{
		argument(1),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOL_SOCKET, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_IPV6, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 3},
		argument(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: tcpULP, SkipTrue: 1},
		bpf.RetConstant{Val: retAllow},
		bpf.RetConstant{Val: retPerm},
	}
}
