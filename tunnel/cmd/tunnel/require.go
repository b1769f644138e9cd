package main

import (
	"mayfly/internal/command"
	"mayfly/policies/ledger"
	"mayfly/tunnel/checkin"
)

const requireHelp = "`word`: a server has to show that the fleet's public ledger has its life (logged), and that a TPM showed what it booted (attested)"

// loadConfig reads client.json. The flag asks for more than the file does, never for less.
func loadConfig(path, require string) (checkin.ClientConfig, error) {
	if !ledger.IsRequirement(require) {
		return checkin.ClientConfig{}, command.Usagef("--require %q: it is %s or %s", require, ledger.RequireLogged, ledger.RequireAttested)
	}
	c, err := checkin.LoadConfig(path)
	if err != nil {
		return c, err
	}
	if c.Require != ledger.RequireAttested && require != ledger.RequireNothing {
		c.Require = require
	}
	return c, c.CheckRequire()
}
