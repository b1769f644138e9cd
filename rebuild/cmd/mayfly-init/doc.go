// Mayfly-init is PID 1 of a server. mayfly-stub has verified the root that it lies in and hands over the ticket; from there
// it brings the machine to serving, keeps it there, and ends it.
//
// The story, in the order of the files:
//
//	main.go      begin: the stages of a boot, each a function
//	console.go   stage lines; nothing else is ever said
//	mounts.go    the writable places, all of them RAM and bounded
//	modules.go   the kernel modules of the image, before loading is forbidden
//	watchdog.go  whatever ends the machine when this process is not heard
//	lockdown.go  kernel settings that close what a RAM-only machine must not have
//	harden.go    the kernel is as closed as the release says, read back
//	disks.go     what could keep data: refused, or its driver taken off; looked for again
//	refuse.go    what it does not go on with: swap, a clock before the release
//	papers.go    ticket, trust and release: checked again, then removed
//	network.go   loopback, host name, address
//	firewall.go  the host's packet filter, rules as data
//	keys.go      all keys, made in this boot's RAM
//	joining.go   join with bounded tries, renewal at half life
//	policy.go    the signed bundle, and who is granted here
//	accounts.go  Unix accounts and authorized keys of granted engineers
//	sshd.go      OpenSSH's configuration
//	resolver.go  unbound's configuration
//	tunnel.go    the VPN server's configuration and its control socket
//	bastion.go   a server that is a bastion: its configuration, its control socket
//	auditlink.go a bastion's audit records, to the controller
//	supervise.go services: start, restart with back-off, output to /dev/null but for sshd's
//	reap.go      children, one's own and orphans
//	machine.go   the state of a running machine and what changes it
//	probe.go     whether each service answers
//	logins.go    engineers' logins, as sshd says them
//	stream.go    the controller's stream: health and logins out, orders in
//	cut.go       ending what an engineer left behind
//	deadline.go  the end of life by CLOCK_BOOTTIME
//	orders.go    what may lengthen a life, and what has it start anew, both signed
//	button.go    the ACPI power button
//	container.go a server of a test fleet that is a container
//	warnings.go  what the controller has to know, and keeps nothing from going on
//	stop.go      the orderly end
//
// Rendering is pure and tested on any host; effects are thin beside it.
//
// It refuses rather than degrades: a refusal is a reason code on the console and at the controller, then the machine holds,
// without a shell and without a reboot loop, until it is switched off or its deadline comes. It trusts the kernel that booted
// it, the trust policy in the initramfs, and what that policy's keys signed; it does not trust its controller with the policy.
package main
