package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"syscall"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/tunnel/dns"
	"mayfly/tunnel/wire"
)

// maxResolver bounds resolver.json, in bytes.
const maxResolver = 64 << 10

var resolverVerb = command.Verb{
	Name:    "resolver",
	Args:    "--config FILE --conf FILE",
	Summary: "become the server's own resolver: render unbound.conf and run unbound with it",
	Help: `mayfly-init starts it on a VPN server, as root; unbound itself goes on as its own user. The program is replaced by unbound,
so that who started it supervises unbound.

Example: tunnel resolver --config /run/mayfly/unbound/resolver.json --conf /run/mayfly/unbound/unbound.conf`,
	Run: func(_ context.Context, c *command.Call) error {
		fs := c.Flags()
		config := fs.String("config", "", "resolver.json: address, network, private, root")
		conf := fs.String("conf", "", "where to write unbound.conf")
		unbound := fs.String("unbound", "/usr/sbin/unbound", "the program")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs.Args()); err != nil {
			return err
		}
		if *config == "" || *conf == "" {
			return command.Usagef("--config and --conf are needed")
		}
		data, err := os.ReadFile(*config)
		if err != nil {
			return fmt.Errorf("reading the resolver's configuration: %w", err)
		}
		var settings dns.Config
		if err := wire.Decode(bytes.NewReader(data), maxResolver, &settings); err != nil {
			return fmt.Errorf("%s: %w", *config, err)
		}
		if err := settings.Check(); err != nil {
			return fmt.Errorf("%s: %w", *config, err)
		}
		if err := durable.WriteFile(*conf, dns.Unbound(settings), 0o644); err != nil {
			return err
		}
		err = syscall.Exec(*unbound, []string{*unbound, "-d", "-p", "-c", *conf}, os.Environ())
		return fmt.Errorf("starting %s: %w", *unbound, err)
	},
}
