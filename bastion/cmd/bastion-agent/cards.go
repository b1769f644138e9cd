//go:build pcsc

package main

import (
	"fmt"
	"log/slog"
	"os"

	"mayfly/bastion/agent"
	"mayfly/bastion/card"
)

// openCards reaches the cards of this machine, for the agent.
func openCards(*slog.Logger) (agent.Cards, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program, which is started for each use of a card: %w", err)
	}
	return card.Confined{Reach: reach(), Command: []string{self, card.Verb}}, nil
}
