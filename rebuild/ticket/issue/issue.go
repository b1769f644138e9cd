// Package issue makes the ticket of a server's next life from the inventory. It is apart from package ticket so that the stub, which
// only opens tickets, links neither the inventory nor what reads it.
package issue

import (
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"time"

	"mayfly/inventory"
	"mayfly/rebuild/ticket"
)

// Life is what New needs to know beyond the inventory.
type Life struct {
	Epoch    uint64
	Release  [32]byte      // SHA-256 of release.json
	Path     string        // of the release below the controller's boot port, for example "/releases/7/"
	CA       []byte        // PEM of the fleet's TLS CA
	NotAfter time.Time     // join before
	MaxAge   time.Duration // of the machine
}

// New makes the ticket for a server's next life, with a fresh secret.
func New(fleet inventory.Fleet, server string, life Life) (ticket.Ticket, error) {
	s, ok := fleet.RebuiltServer(server)
	if !ok || server == "" {
		return ticket.Ticket{}, fmt.Errorf("making a ticket: no server %q in fleet %q", server, fleet.Name)
	}
	host := fleet.Controller.Address.String()
	port := func(p uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(p))) }
	return ticket.New(ticket.Ticket{
		Fleet:      fleet.Name,
		Domain:     fleet.Domain,
		Server:     s.Name,
		Epoch:      life.Epoch,
		Release:    hex.EncodeToString(life.Release[:]),
		ReleaseURL: "http://" + port(fleet.Controller.BootPort) + life.Path,
		Address:    s.Address,
		Gateway:    fleet.Network.Gateway,
		Controller: port(fleet.Controller.JoinPort),
		Name:       ticket.ControllerLabel + "." + fleet.Domain,
		CA:         string(life.CA),
		NotAfter:   life.NotAfter.UTC().Truncate(time.Second),
		MaxAge:     int64(life.MaxAge / time.Second),
	})
}
