package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"mayfly/bastion/agent"
	"mayfly/bastion/card"
	"mayfly/bastion/hardkey"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// minFirmware is what fleets ask for whose policy says nothing else.
const minFirmware = hardkey.DefaultMinFirmware

// terminal is the one that this program was started in.
const terminal = "/dev/tty"

// person is asked on the terminal, unless files hold the answers.
type person struct {
	out              io.Writer
	pinFile, pukFile string
	yes              bool
	read             func(ctx context.Context, prompt string) ([]byte, error) // without echo
}

var _ card.Person = (*person)(nil)

func (p *person) Say(text string) { fmt.Fprintln(p.out, text) }

// Secret reads the secret's file, or asks: twice for a new one.
func (p *person) Secret(ctx context.Context, ask card.Ask) (string, error) {
	file := p.pinFile
	if ask.Kind == "PUK" {
		file = p.pukFile
	}
	if file != "" {
		secret, err := durable.ReadSecret(file)
		defer clear(secret)
		return string(bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))), err
	}
	secret, err := p.prompt(ctx, ask, ask.Text)
	defer clear(secret)
	if err != nil || !ask.New {
		return string(secret), err
	}
	again, err := p.prompt(ctx, ask, "the same again")
	defer clear(again)
	if err == nil && !bytes.Equal(secret, again) {
		err = hint.New(fmt.Errorf("the two %ss differ", ask.Kind), "nothing was changed: run it again")
	}
	return string(secret), err
}

func (p *person) prompt(ctx context.Context, ask card.Ask, text string) ([]byte, error) {
	secret, err := p.read(ctx, text)
	switch {
	case err != nil:
		return nil, hint.New(fmt.Errorf("asking for the %s: %w", ask.Kind, err), "without a terminal, --pin-file and --puk-file name files of mode 0600 that hold them")
	case len(secret) == 0:
		return nil, fmt.Errorf("no %s was given", ask.Kind)
	}
	return secret, nil
}

// Agree shows what will be done, and takes "yes" for an answer.
func (p *person) Agree(ctx context.Context, text string) error {
	fmt.Fprint(p.out, text)
	if p.yes {
		return nil
	}
	answer, err := p.read(ctx, `type "yes" to go on`)
	if err != nil {
		return hint.New(fmt.Errorf("asking whether to go on: %w", err), "without a terminal, --yes agrees")
	}
	if string(answer) != "yes" {
		return hint.New(errors.New("nothing was changed: you did not agree"), `the answer to type is "yes"`)
	}
	return nil
}

func readTerminal(ctx context.Context, prompt string) ([]byte, error) {
	return agent.Terminal{Path: terminal}.Ask(ctx, prompt)
}
