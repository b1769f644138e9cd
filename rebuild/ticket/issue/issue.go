// Package issue makes the ticket of a server's next life from the inventory. It is apart from package ticket so that the stub, which
// only opens tickets, links neither the inventory nor what reads it.
package issue

import (
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
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
	Made     time.Time     // now: its deadline is MaxAge later
	TPM      string        // ticket.TPMOff or ticket.TPMRequired, by the policy
	Disks    string        // ticket.DisksRefuse or ticket.DisksUnbind, by the policy
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
		Mirrors:    Mirrors(fleet, s, life.Path),
		Network:    network(s.Network),
		Witnesses:  fleet.Witnesses,
		TPM:        life.TPM,
		Disks:      life.Disks,
		Address:    s.Address,
		Gateway:    fleet.Network.Gateway,
		Controller: port(fleet.Controller.JoinPort),
		Name:       ticket.ControllerLabel + "." + fleet.Domain,
		CA:         string(life.CA),
		NotAfter:   life.NotAfter.UTC().Truncate(time.Second),
		MaxAge:     int64(life.MaxAge / time.Second),
		Deadline:   life.Made.Add(life.MaxAge).UTC().Truncate(time.Second),
	})
}

// Mirrors are the places of a release's files in the order in which a server asks them: its own mirror, the fleet's others, the controller. path begins and ends with a slash.
func Mirrors(fleet inventory.Fleet, s inventory.Server, path string) []string {
	var all []string
	for _, m := range fleet.MirrorsOf(s) {
		all = append(all, m+strings.TrimPrefix(path, "/"))
	}
	controller := net.JoinHostPort(fleet.Controller.Address.String(), strconv.Itoa(int(fleet.Controller.BootPort)))
	return append(all, "http://"+controller+path)
}

// network is how the inventory says a server reaches the network; without a word, statically through its first device.
func network(l inventory.Link) ticket.Network {
	if l.Mode == "" {
		l.Mode = ticket.Static
	}
	return ticket.Network{Mode: l.Mode, MACs: l.MACs, Bond: l.Bond, VLAN: l.VLAN}
}
