// Package sandbox confines the running process for good: what it has not asked for beforehand it cannot do any more, whoever
// has taken it over. One file is one layer:
//
//	rules        what a confined process may still do
//	limits       resource limits, no core dump, no new privileges
//	capabilities none are kept
//	landlock     which files, which TCP ports
//	calls        which system calls, and what the others get
//	seccomp      the same as a classic BPF program, on all threads
//	report       what this kernel enforces and what it lacks
//
// Invariants. Nothing is ever widened again: a rule that is missing needs a restart. Every layer is on all threads of the process
// or Apply fails. What the kernel lacks is named in the report, never passed over.
//
// What it does not do: it does not hide files that were open before, it does not bound the peers of an allowed port, and it is
// no substitute for a user of the bastion's own.
//
// References: landlock(7), seccomp(2), capabilities(7), the kernel's Documentation/userspace-api/{landlock,seccomp_filter}.rst.
package sandbox
