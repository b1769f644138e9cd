package signer

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// twiceRequest is a ticket that the controller has seen used before.
type twiceRequest struct {
	Ticket    []byte `json:"ticket"`
	Signature []byte `json:"signature"`
}

// usedTwice takes back what a ticket has begun, or would have begun: nobody can tell which of the two who showed it is the server. A ticket that never
// came here, because the controller or this process failed in between, begins nothing any more.
func (s *server) usedTwice(r twiceRequest, now time.Time) (struct{}, error) {
	t, err := ticket.Open(s.rules.trusts(), r.Ticket, r.Signature, time.Time{}) // that it has expired does not keep its life
	if err != nil {
		return struct{}{}, join.RefuseTicket(err)
	}
	began, err := s.lives.burn(t, ticket.Hash(r.Ticket))
	if err != nil {
		return struct{}{}, err
	}
	if !began {
		return struct{}{}, nil
	}
	used := join.Refuse(join.TicketUsed, "the ticket for life %d of %q was used before", t.Epoch, t.Server)
	if err := s.revoked(t, used, now); err != error(used) {
		return struct{}{}, err
	}
	return struct{}{}, nil
}

// burn revokes the life of a ticket, durably, whether it has begun or not.
func (l *lives) burn(t *ticket.Ticket, hash [32]byte) (began bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.load(t.Server)
	if err != nil || t.Epoch < v.Epoch { // that life is over
		return false, err
	}
	began = t.Epoch == v.Epoch && v.TLSKey != ""
	if t.Epoch > v.Epoch {
		if t.Epoch-max(v.Epoch, v.Signed) > maxEpochStep && t.Epoch > v.Signed {
			return false, fmt.Errorf("revoking life %d of %q: no ticket of it was signed here", t.Epoch, t.Server)
		}
		v.Epoch, v.Tickets, v.TLSKey, v.HostKey, v.Evidence = t.Epoch, nil, "", "", ""
	}
	if h := hex.EncodeToString(hash[:]); !slices.Contains(v.Tickets, h) && len(v.Tickets) < maxTicketsOfEpoch {
		v.Tickets = append(v.Tickets, h)
	}
	v.Revoked = true
	return began, l.save(v)
}
