package main

import (
	"context"
	"fmt"
	"time"

	"mayfly/bastion"
	"mayfly/internal/command"
)

func drainVerb() command.Verb {
	return command.Verb{
		Name:    "drain",
		Args:    "--config FILE [--limit 30m]",
		Summary: "accept nobody, and end when everybody has left",
		Help: `It asks the bastion that serves with this configuration, over its control socket. Who is in may go on up to the limit; the bastion ends when
all have left; --limit 0s cuts them at once. With socket activation the next connection starts the next bastion; a new one cannot begin before the old one has ended.

` + configHelp,
		Run: drain,
	}
}

func drain(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	limit := fs.Duration("limit", 30*time.Minute, "how `long` sessions may go on")
	config, err := parseConfig(c, fs)
	if err != nil {
		return err
	}
	if *limit < 0 || *limit > bastion.MaxDrain || *limit%time.Second != 0 {
		return command.Usagef("--limit %s: whole seconds, at most %s", *limit, bastion.MaxDrain)
	}
	d, err := bastion.AskDrain(ctx, config, *limit)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Stdout, "draining: sessions: %d, at most until %s\n", d.Sessions, d.Until.Format(time.RFC3339))
	return err
}
