package main

import (
	"fmt"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
)

// needsController refuses what a fleet of only bastions and hosts has no use for: it rebuilds nothing and carries nobody's traffic.
func needsController(f inventory.Fleet) error {
	if !f.BastionsOnly() {
		return nil
	}
	return command.Refuse(hint.New(fmt.Errorf("fleet %s is bastions and hosts only: nothing in it is rebuilt", f.Name),
		"engineers reach hosts through the bastion, which needs no controller; servers with role = \"vpn\" need one"))
}
