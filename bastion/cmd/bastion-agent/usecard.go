package main

import (
	"context"

	"mayfly/bastion/card"
	"mayfly/internal/command"
)

const cardHelp = `The agent starts this for each use of a card, and speaks with it over standard input and output: whatever a card answers, and whatever the
libraries on the way to it make of that, ends no more than one use. It holds the card as long as it runs. It is of no use by itself.`

var cardVerb = command.Verb{
	Name:    card.Verb,
	Summary: "use one card, for serve, which starts it",
	Help:    cardHelp,
	Run:     useCard,
}

func useCard(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return command.Usagef("%s takes no words, got %q", card.Verb, fs.Arg(0))
	}
	if err := harden(); err != nil {
		return err
	}
	return card.Serve(ctx, c.Stdin, c.Stdout, reach())
}
