//go:build !pcsc

package main

import (
	"context"
	"log/slog"

	"mayfly/bastion/agent"
	"mayfly/bastion/card"
)

// errNotBuilt is what every way to a card comes to in a program that is built without PC/SC.
var errNotBuilt = card.NewError(card.NotBuilt, "this bastion-agent is built without smart cards")

// openCards would reach the cards of this machine, for the agent.
func openCards(*slog.Logger) (agent.Cards, error) { return nil, errNotBuilt }

// reach would be the way to cards, for the other verbs.
func reach() card.Reach { return notBuilt{} }

type notBuilt struct{}

func (notBuilt) Readers(context.Context) ([]card.Reader, error)   { return nil, errNotBuilt }
func (notBuilt) Open(context.Context, string) (card.Token, error) { return nil, errNotBuilt }
func (notBuilt) Secrets(context.Context, string) (card.Secrets, error) {
	return card.Secrets{}, errNotBuilt
}
