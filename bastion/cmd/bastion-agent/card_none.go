//go:build !pcsc

package main

import (
	"errors"
	"log/slog"

	"mayfly/bastion/agent"
	"mayfly/internal/hint"
)

// openCards would reach the cards of this machine, in a program that is built with PC/SC.
func openCards(*slog.Logger) (agent.Cards, error) {
	return nil, hint.New(errors.New("this bastion-agent is built without smart cards"),
		"build it with them: CGO_ENABLED=1 go build -tags pcsc ./bastion/cmd/bastion-agent (needs gcc, pkg-config and libpcsclite-dev)")
}
