package rotate

import (
	"context"

	"mayfly/inventory"
	"mayfly/rebuild/power"
	"mayfly/rebuild/ticket"
)

// Machine switches one server off and on. Asked twice for one epoch, it acts once.
type Machine = power.Driver

// Tickets signs one-time tickets.
type Tickets interface {
	Ticket(ctx context.Context, t ticket.Ticket) (data, signature []byte, err error)
}

// Prober asks a server from outside whether it would take users.
type Prober interface {
	Probe(ctx context.Context, server inventory.Server) error
}

// Machines finds the machine of a server.
type Machines interface {
	Machine(server inventory.Server) (Machine, error)
}
