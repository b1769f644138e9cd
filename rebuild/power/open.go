package power

import (
	"fmt"
	"log/slog"

	"mayfly/inventory"
)

// Open returns the driver that the inventory names for a server. dir is where drivers keep the state of machines that run here.
func Open(s inventory.Server, dir string, log *slog.Logger) (Driver, error) {
	switch s.Power.Driver {
	case inventory.DriverQEMU:
		return OpenQEMU(s, dir, Options{}, log)
	}
	return nil, fmt.Errorf("server %s: power driver %q is not known", s.Name, s.Power.Driver)
}
