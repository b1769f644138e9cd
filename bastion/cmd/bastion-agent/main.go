// Command bastion-agent is the engineer's side of the bastion: an ssh-agent for keys on smart cards, and what makes and enrols such keys.
package main

import (
	"context"
	"os"

	"mayfly/internal/command"
)

func main() {
	ctx, stop := command.Signals(context.Background())
	defer stop()
	os.Exit(program().Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func program() command.Program {
	return command.Program{
		Name:    "bastion-agent",
		Summary: "keep an engineer's keys on cards: make them, enrol them, sign with them",
		Verbs: []command.Verb{
			serveVerb, setupVerb, enrollVerb, keysVerb, doctorVerb, cardVerb,
		},
	}
}
