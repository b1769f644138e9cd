package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/tunnel/client"
)

var registerVerb = command.Verb{
	Name:    "register",
	Args:    "--config client.json --out FILE.conf [--require logged|attested] [--region REGION] [--route PREFIX]... [--no-dns] [-o json]",
	Summary: "register a session and write it as a file for wg-quick",
	Help: `The file (0600) holds a fresh key and a preshared key that came over post-quantum TLS. It is good for one session: until
the server drains, or five minutes without a handshake. Without --route everything goes through the tunnel.

Example: tunnel register --config client.json --out wg0.conf && wg-quick up ./wg0.conf`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		config := fs.String("config", "", "the fleet's client.json")
		require := fs.String("require", "", requireHelp)
		region := fs.String("region", "", "use servers of this region only")
		out := fs.String("out", "", "the file to write; an old one is replaced")
		noDNS := fs.Bool("no-dns", false, "leave the resolver alone (wg-quick needs resolvconf for DNS)")
		form := fs.String("o", "text", "output: text or json")
		var routes prefixes
		fs.Var(&routes, "route", "send this prefix through the tunnel (may be repeated; default: everything)")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs.Args()); err != nil {
			return err
		}
		switch {
		case *config == "":
			return command.Usagef("no --config")
		case *out == "":
			return command.Usagef("no --out")
		case *form != "text" && *form != "json":
			return command.Usagef("output %q: want text or json", *form)
		}
		settings, err := loadConfig(*config, *require)
		if err != nil {
			return err
		}
		r, err := client.Register(ctx, settings, *region, time.Now())
		if err != nil {
			return err
		}
		if err := durable.WriteFile(*out, r.WGQuick(routes, !*noDNS), 0o600); err != nil {
			return err
		}
		r.File = *out
		if *form == "json" {
			return json.NewEncoder(c.Stdout).Encode(r)
		}
		_, err = fmt.Fprintf(c.Stdout, "registered at %s in region %s: address %s, resolver %s, written to %s\n",
			r.Server, r.Region, r.Address, r.DNS, r.File)
		return err
	},
}
