package main

import (
	"context"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"mayfly/internal/command"
	"mayfly/tunnel/server"
)

// The garbage collector of a server begins to work harder at a third of the machine's memory, and at memoryMost on a large one. The
// data plane's buffers grow with what is in flight and shrink only when they are collected; a server has its whole system in RAM.
const (
	memoryShare = 3
	memoryMost  = 512 << 20
)

// boundMemory sets the limit. A kernel that does not say how much memory there is gets the limit of a large machine.
func boundMemory() {
	limit := int64(memoryMost)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		limit = min(limit, int64(info.Totalram)*int64(info.Unit)/memoryShare)
	}
	debug.SetMemoryLimit(limit)
}

var serverVerb = command.Verb{
	Name:    "server",
	Args:    "--config FILE",
	Summary: "serve VPN users: registration, WireGuard, NAT, notices",
	Help: `mayfly-init starts it on a VPN server. It needs CAP_NET_ADMIN. Peers are kept in memory alone, and no address or key of a
user is logged. The log says "ready" when everything listens.

Example: tunnel server --config /run/mayfly/tunnel/server.json`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		config := fs.String("config", "", "server.json, as docs/formats/registration.md describes it")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs.Args()); err != nil {
			return err
		}
		if *config == "" {
			return command.Usagef("no --config")
		}
		settings, err := server.LoadConfig(*config)
		if err != nil {
			return err
		}
		boundMemory()
		return server.Serve(ctx, settings, talk(c.Stderr))
	},
}
