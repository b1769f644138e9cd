package signer

import (
	"fmt"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/rebuild/join"
	"mayfly/tunnel/checkin"
)

// Bounds of a server list's times.
const (
	MaxListLife = 10 * time.Minute
	maxListSkew = time.Minute
)

// list signs a server list that names only servers of the signed inventory, where that says they are.
func (s *server) list(l checkin.List, now time.Time) (checkin.Signed, error) {
	b, err := s.rules.bundle(now)
	if err != nil {
		return checkin.Signed{}, err
	}
	if err := checkList(l, b.Inventory, now); err != nil {
		return checkin.Signed{}, err
	}
	if err := s.lives.takers(l, b.Inventory.Domain); err != nil {
		return checkin.Signed{}, err
	}
	if err := s.rate.allow("lists", l.Fleet, listsPerHour, now); err != nil {
		return checkin.Signed{}, err
	}
	data, err := canonical.Marshal(l)
	if err != nil {
		return checkin.Signed{}, fmt.Errorf("encoding the server list: %w", err)
	}
	sig, err := sshsig.Sign(s.keys.list, checkin.Namespace, data)
	if err != nil {
		return checkin.Signed{}, fmt.Errorf("signing the server list: %w", err)
	}
	return checkin.Signed{List: data, Signature: sig}, nil
}

func checkList(l checkin.List, f inventory.Fleet, now time.Time) error {
	switch {
	case l.Kind != checkin.Kind || l.Fleet != f.Name:
		return join.Refuse(join.NotInInventory, "list of kind %q for fleet %q, not of fleet %q", l.Kind, l.Fleet, f.Name)
	case l.Issued.Sub(now).Abs() > maxListSkew:
		return join.Refuse(join.RequestInvalid, "list issued at %s, it is %s", l.Issued.Format(time.RFC3339), now.Format(time.RFC3339))
	case !l.Expires.After(l.Issued) || l.Expires.Sub(l.Issued) > MaxListLife:
		return join.Refuse(join.LifetimeTooLong, "list valid for %s, at most %s", l.Expires.Sub(l.Issued), MaxListLife)
	}
	seen := make(map[string]bool)
	for _, e := range l.Servers {
		name := e.Name
		if suffix := "." + f.Domain; len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix {
			name = name[:len(name)-len(suffix)]
		}
		s, ok := f.RebuiltServer(name)
		switch {
		case !ok || s.Role != inventory.RoleVPN || s.Internal() || seen[name]:
			return join.Refuse(join.ServerUnknown, "the list names %q, unknown, without users or twice", e.Name)
		case e.Address != s.Address.Addr() || e.Region != f.RegionOf(name):
			return join.Refuse(join.NotInInventory, "the list has %q at %s in %q, the inventory at %s in %q", e.Name, e.Address, e.Region, s.Address.Addr(), f.RegionOf(name))
		}
		seen[name] = true
	}
	return nil
}
