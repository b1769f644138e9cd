package etcd

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"mayfly/inventory/store"
)

// PutTicket records a ticket for a server's current life. A server's record names the one ticket that may still be used: earlier ones are
// revoked by that.
func (s *Store) PutTicket(ctx context.Context, name string, epoch uint64, hash [32]byte, notAfter time.Time) error {
	key := s.ticketKey(hash[:])
	_, err := s.change(ctx, name, []string{s.key(keyServer, name), key}, func(c *change) error {
		r, err := c.record(name)
		if err != nil {
			return err
		}
		if r.Epoch != epoch || epoch == 0 {
			return fmt.Errorf("ticket for life %d of server %q, which is in life %d: %w", epoch, name, r.Epoch, store.ErrStale)
		}
		if c.read[key] != nil {
			return fmt.Errorf("recording ticket of server %q: it is recorded already", name)
		}
		r.Ticket = hex.EncodeToString(hash[:])
		c.save(r)
		c.put(key, store.Ticket{Hash: hash[:], Server: name, Epoch: epoch, NotAfter: notAfter.UTC()})
		return nil
	})
	return err
}

// UseTicket uses a ticket up.
func (s *Store) UseTicket(ctx context.Context, hash [32]byte, name string, epoch uint64, now time.Time) error {
	key, revoked := s.ticketKey(hash[:]), s.lifeKey(keyRevoked, name, epoch)
	var verdict error
	_, err := s.change(ctx, name, []string{s.key(keyServer, name), key, revoked}, func(c *change) error {
		verdict = nil
		var t store.Ticket
		ok, err := c.has(key, &t)
		if err != nil {
			return err
		}
		if !ok || t.Server != name || t.Epoch != epoch {
			verdict = store.ErrTicketUnknown
			return nil
		}
		r, err := c.record(name)
		if err != nil {
			return err
		}
		switch {
		case !t.Used.IsZero():
			verdict = store.ErrTicketUsed // and this is written all the same
			if c.read[revoked] == nil {
				c.put(revoked, store.Ended{Server: name, Epoch: epoch, At: now.UTC()})
				if r.Epoch == epoch {
					r.Revoked = true
					c.save(r)
				}
			}
			return nil
		case r.Ticket != hex.EncodeToString(hash[:]):
			verdict = store.ErrTicketRevoked
			return nil
		case !now.Before(t.NotAfter):
			verdict = store.ErrTicketExpired
			return nil
		}
		t.Used = now.UTC()
		c.put(key, t)
		return nil
	})
	if err == nil {
		err = verdict
	}
	if err != nil {
		return fmt.Errorf("using ticket of server %q, life %d: %w", name, epoch, err)
	}
	return nil
}

// Revoked reports whether a life was revoked because its ticket came twice.
func (s *Store) Revoked(ctx context.Context, name string, epoch uint64) (bool, error) {
	var e store.Ended
	ok, err := s.get(ctx, s.lifeKey(keyRevoked, name, epoch), &e)
	if err != nil {
		return true, fmt.Errorf("reading revocations of server %q: %w", name, err)
	}
	return ok, nil
}
