package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"

	"mayfly/testenv/pcscd"
	"mayfly/testenv/pivcard"
	"mayfly/testenv/supervise"
)

// cards are virtual cards in a pcscd, each a program of its own: they outlive this one, as `testenv up` wants, and end with the
// environment.
type cards struct {
	pcscd.Place
	issuer string // the maker's file
	e      *environment
}

// issuerFile is the maker's. It is there if the environment has cards.
func (e *environment) issuerFile() string { return e.path("cards", "issuer") }

// hasCards tells whether people hold virtual cards; else they hold software keys.
func (e *environment) hasCards() bool {
	_, err := os.Stat(e.issuerFile())
	return err == nil
}

func (e *environment) cardsOf(readers int) *cards {
	return &cards{Place: pcscd.Place{Dir: e.path("pcscd"), Readers: readers}, issuer: e.issuerFile(), e: e}
}

// control is the socket at which a card is held in the hand (pivcard.Ask).
func (c *cards) control(name string) string { return c.e.path("cards", name+".sock") }

// startCards starts a pcscd and plugs a card for each name into a reader of it, in that order; they are touched whenever they ask. The lab has to be there, and testenv
// to be built.
func (e *environment) startCards(ctx context.Context, names ...string) (*cards, error) {
	c := e.cardsOf(len(names))
	daemon, err := c.Prepare()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.path("cards"), 0o700); err != nil {
		return nil, fmt.Errorf("making the cards' directory: %w", err)
	}
	if _, err := pivcard.LoadOrNewIssuer(c.issuer); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := e.startReady(ctx, "pcscd", daemon, c.Ready); err != nil {
		return nil, err
	}
	for reader, name := range names {
		card := exec.Command(e.bin("testenv"), "pivcard", "serve", "--card", e.path("cards", name), "--issuer", c.issuer,
			"--reader", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port(reader))), "--control", c.control(name), "--touch", "auto")
		card.Dir, card.Env = e.dir, e.environ()
		if err := e.startReady(ctx, "card-"+name, card, func(ctx context.Context) error { return c.AwaitCard(ctx, reader) }); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// startReady starts a program beside the cards and waits until it is ready, or has ended.
func (e *environment) startReady(ctx context.Context, name string, cmd *exec.Cmd, ready func(context.Context) error) error {
	p, err := e.table.Start(name, cmd, e.lab.Cards.Start)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := ready(ctx); err != nil {
		select {
		case <-p.Done():
			err = errors.Join(errors.New("it ended"), p.Err())
		default:
		}
		return fmt.Errorf("starting %s: %w; its last lines:\n%s", name, err, supervise.Tail(p.Log, 10))
	}
	return nil
}
