package main

import (
	"context"
	"encoding/json"

	"mayfly/internal/command"
	"mayfly/tunnel/client"
)

var clientVerb = command.Verb{
	Name:    "client",
	Args:    "--config client.json [--require logged|attested] [--region REGION] [--route PREFIX]... [--resolv-conf FILE]",
	Summary: "carry this machine's traffic through the fleet",
	Help: `It checks in, picks a server at random, registers a fresh key there and routes through it until it is stopped. When the
server drains it moves to another first, and connections that began on the old one end there. Each event is a line of JSON on
stdout: "up", "moved", "left", "waiting", "down". It needs CAP_NET_ADMIN.

Example: tunnel client --config client.json --region se --resolv-conf /etc/resolv.conf`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		config := fs.String("config", "", "the fleet's client.json")
		require := fs.String("require", "", requireHelp)
		region := fs.String("region", "", "use servers of this region only")
		resolv := fs.String("resolv-conf", "", "point this file at the tunnel's resolver, and put it back at the end")
		var routes prefixes
		fs.Var(&routes, "route", "send this prefix through the tunnel (may be repeated; default: everything)")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs.Args()); err != nil {
			return err
		}
		if *config == "" {
			return command.Usagef("no --config")
		}
		settings, err := loadConfig(*config, *require)
		if err != nil {
			return err
		}
		out := json.NewEncoder(c.Stdout)
		log := talk(c.Stderr)
		return client.Run(ctx, client.Options{
			Config: settings, Region: *region, Routes: routes, ResolvConf: *resolv, Log: log,
			Events: func(e client.Event) {
				if err := out.Encode(e); err != nil {
					log.Error("writing an event", "error", err)
				}
			},
		})
	},
}
