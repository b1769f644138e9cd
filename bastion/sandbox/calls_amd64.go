package sandbox

import "golang.org/x/sys/unix"

// auditArch is the only architecture whose calls are let through (linux/audit.h).
const auditArch = unix.AUDIT_ARCH_X86_64

// x32 has its calls in the same architecture with this bit; none is let through.
const x32 = 0x40000000

// Calls that newer architectures have lost.
var (
	allowedHere = []uint32{unix.SYS_EPOLL_WAIT, unix.SYS_ARCH_PRCTL, unix.SYS_RENAMEAT}
	fatalHere   = []uint32{unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_MODIFY_LDT, unix.SYS_IOPL, unix.SYS_IOPERM}
)
