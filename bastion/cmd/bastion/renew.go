package main

import (
	"context"
	"fmt"
	"time"

	"mayfly/bastion"
	"mayfly/internal/command"
)

const renewHelp = `A host certificate lasts an hour. This keeps it young: when half of its life has passed it asks the fleet's controller (fleetctl
serve, found through the signed inventory and checked by controller_ca) for the next one, and puts that in its place; "bastion serve" takes
it over within a second. It runs beside "bastion serve", as the same user or as another that reads the host key.

The host key proves itself; which key is a bastion's is decided once, with "fleetctl certify". A failure is tried again, at least
once a minute.

Example:

  bastion renew --config bastion.toml`

func renewVerb() command.Verb {
	return command.Verb{
		Name:    "renew",
		Args:    "--config FILE [--once]",
		Summary: "keep the bastion's host certificate young",
		Help:    renewHelp,
		Run: func(ctx context.Context, c *command.Call) error {
			fs := c.Flags()
			once := fs.Bool("once", false, "renew now, and end")
			config, err := parseConfig(c, fs)
			if err != nil {
				return err
			}
			return bastion.Renew(ctx, config, *once, config.Log.Logger(c.Stderr), func(due time.Time) {
				fmt.Fprintf(c.Stderr, "bastion: renew: ready, next at %s\n", due.UTC().Format(time.RFC3339))
			})
		},
	}
}
