package sandbox

import "golang.org/x/sys/unix"

// auditArch is the only architecture whose calls are let through (linux/audit.h).
const auditArch = unix.AUDIT_ARCH_AARCH64

// x32 is another architecture's matter.
const x32 = 0

// Calls that newer architectures have lost.
var (
	allowedHere = []uint32{unix.SYS_RENAMEAT}
	fatalHere   []uint32
)
