package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"mayfly/internal/command"
	"mayfly/testenv/bench"
	"mayfly/testenv/debian"
)

// maxSoak bounds a soak, in minutes.
const maxSoak = 24 * 60

var soakVerb = command.Verb{
	Name:    "soak",
	Args:    "[--minutes N] [-o table|json]",
	Summary: "open and drop sessions for minutes, and see that the bastion ends as it began",
	Help: `Sessions are opened and dropped in several ways, good and bad, at a bastion of its own in a network namespace. Before, and after everybody is
gone, it compares goroutines, heap and resident memory of the process. Growth beyond what the table names ends with exit 1.`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		minutes := fs.Int("minutes", 10, "for `N` minutes")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() > 0 || (*output != "table" && *output != "json") || *minutes < 1 || *minutes > maxSoak {
			return command.Usagef("soak takes --minutes of 1 to %d, -o table or -o json", maxSoak)
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		e, err := newEnvironment()
		if err != nil {
			return err
		}
		if done, err := e.asRoot(ctx, c, "soak", []debian.Need{{Name: "ip", Package: "iproute2"}}, nil); done || err != nil {
			return err
		}
		defer e.giveCaches(ctx)
		report, err := bench.Soak(ctx, time.Duration(*minutes)*time.Minute, c.Stderr)
		if err != nil {
			return err
		}
		if *output == "json" {
			err = json.NewEncoder(c.Stdout).Encode(report)
		} else {
			err = report.WriteTable(c.Stdout)
		}
		if err == nil && !report.Good {
			err = errors.New("the bastion holds more than it began with")
		}
		return err
	},
}
