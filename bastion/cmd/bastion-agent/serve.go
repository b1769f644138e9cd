package main

import (
	"context"
	"log/slog"

	"mayfly/internal/command"
)

var serveVerb = command.Verb{
	Name:    "serve",
	Args:    "[flags]",
	Summary: "be the ssh-agent for the keys on plugged cards",
	Help:    `Serves OpenSSH's agent protocol on a unix socket.`,
	Run:     serve,
}

func serve(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return command.Usagef("serve takes no words, got %q", fs.Arg(0))
	}
	_, err := openCards(slog.New(slog.NewTextHandler(c.Stderr, nil)))
	return err
}
