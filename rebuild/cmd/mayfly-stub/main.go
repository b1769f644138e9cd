// Command mayfly-stub is the first program of a server: PID 1 of the initramfs. It believes the trust policy that it was started
// with and nothing else: it checks the ticket, asks witnesses for the time and the newest release, fetches the release statement that the
// ticket names from the first mirror that serves it, checks who signed it and that the public ledger holds it, measures it into the TPM, streams
// the root into sealed memory while hashing it, and hands over to the root's /sbin/mayfly-init.
//
// Read in this order: stages.go (what happens, in order), early.go (mounts, modules), credentials.go (trust policy and ticket), network.go and
// lease.go (devices, addresses, DHCP), clock.go and witnesses.go (what time it is, which release is the newest), mirrors.go and fetch.go (HTTP with
// bounds), measure.go, root.go (sealed memory, loop, EROFS), handover.go (switch root), refuse.go (reason codes, hold),
// report.go.
//
// What it refuses it reports to the controller that the ticket names, once the ticket is believed, and then holds: it never starts a
// shell, and never boots again by itself. It writes to no disk: it has no driver of one.
package main

import (
	"context"
	"os"

	"mayfly/internal/command"
)

func main() {
	if os.Getpid() != 1 {
		program := command.Program{Name: "mayfly-stub", Summary: "the first program of a server; it runs as PID 1 of an initramfs only"}
		os.Exit(program.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	b := &boot{console: os.Stderr}
	b.refuse(b.run(context.Background()))
	hold()
}
