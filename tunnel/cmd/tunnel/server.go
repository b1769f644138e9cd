package main

import (
	"context"
	"runtime/debug"

	"mayfly/internal/command"
	"mayfly/tunnel/server"
)

// memoryLimit is where the garbage collector of a server begins to work harder. The data plane's buffers grow with what is in
// flight and shrink only when they are collected; a server has its whole system in RAM.
const memoryLimit = 160 << 20

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
		debug.SetMemoryLimit(memoryLimit)
		return server.Serve(ctx, settings, talk(c.Stderr))
	},
}
