package main

import (
	"log/slog"
	"net/netip"

	"mayfly/internal/sealed"
	"mayfly/inventory"
	"mayfly/rebuild/power"
)

// secrets are the sealed passwords of BMCs. What opens them lies beside their directory, which may so be copied and kept elsewhere.
func (d state) secrets() sealed.Store {
	return sealed.Store{Dir: d.path("secrets"), Identity: d.path("secrets.key")}
}

// powerPlace is where power drivers work.
func (d state) powerPlace(f inventory.Fleet, orders power.Orders, log *slog.Logger) power.Place {
	return power.Place{Dir: d.machines(), Offers: d.offers(), Secrets: d.secrets(), Plugins: d.powerPlugins(), Orders: orders, Log: log,
		Base: "http://" + netip.AddrPortFrom(f.Controller.Address, f.Controller.BootPort).String()}
}
