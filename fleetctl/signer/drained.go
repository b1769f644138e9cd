package signer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/request"
	"mayfly/policies/statement"
	"mayfly/rebuild/join"
	"mayfly/tunnel/checkin"
)

type drainedRequest struct {
	Server  string    `json:"server"`
	Epoch   uint64    `json:"epoch"`
	Expires time.Time `json:"expires"`

	For     time.Duration   `json:"for"` // what the order says
	Request *request.Signed `json:"request,omitempty"`
}

type drainedRecord struct {
	Server  string    `json:"server"`
	Epoch   uint64    `json:"epoch"`
	Expires time.Time `json:"expires"`
	SHA256  string    `json:"sha256"`
	Test    bool      `json:"test"`
}

// drained signs that a life takes no traffic, by the leave of people. That it does not is the controller's word; what the signer adds is that it
// stays so: it signs no list that names this life any more, and no ticket for another life before the statement's end. So while a
// bastion believes the statement, the life that it is about is the present one.
func (s *server) drained(r drainedRequest, now time.Time) (signedFile, error) {
	b, err := s.rules.bundle(now)
	if err != nil {
		return signedFile{}, err
	}
	if srv, ok := b.Inventory.RebuiltServer(r.Server); !ok || srv.Role != inventory.RoleVPN {
		return signedFile{}, join.Refuse(join.ServerUnknown, "no VPN server %q in fleet %q", r.Server, b.Inventory.Name)
	}
	made := now.UTC().Truncate(time.Second)
	d := statement.Drained{Kind: statement.KindDrained, Fleet: b.Inventory.Name, Server: r.Server, Epoch: r.Epoch, Made: made, Expires: r.Expires.UTC().Truncate(time.Second)}
	if life := d.Expires.Sub(made); life <= 0 || life > statement.MaxDrained {
		return signedFile{}, join.Refuse(join.LifetimeTooLong, "drained for %s, at most %s", life, statement.MaxDrained)
	}
	asked := request.Drain(d.Server, r.For)
	leave, err := s.orders.decide(b, asked, r.Request, now)
	if err != nil {
		return signedFile{}, err
	}
	if most := r.For + policies.DrainedMargin; leave.Request != nil && d.Expires.Sub(now) > most {
		return signedFile{}, join.Refuse(join.LifetimeTooLong, "drained for %s, and people signed for %s", d.Expires.Sub(now), most)
	}
	data, err := statement.Marshal(d)
	if err != nil {
		return signedFile{}, join.Refuse(join.RequestInvalid, "%v", err)
	}
	err = s.lives.drain(d, now, func() error {
		if err := s.rate.allow("drained statements", d.Server, drainsPerHour, now); err != nil {
			return err
		}
		return s.orders.begin(b, asked, leave, r.Request, now)
	})
	if err != nil {
		return signedFile{}, err
	}
	sig, err := sshsig.Sign(s.keys.ticket, statement.NamespaceDrained, data)
	if err != nil {
		return signedFile{}, fmt.Errorf("signing that %q is drained: %w", d.Server, err)
	}
	if _, err := statement.Open(s.rules.trusts(), data, sig, now); err != nil {
		return signedFile{}, join.Refuse(join.RequestInvalid, "%v", err)
	}
	err = s.log.Append("drained", drainedRecord{Server: d.Server, Epoch: d.Epoch, Expires: d.Expires, SHA256: sum(data), Test: b.Inventory.Test})
	if err != nil {
		return signedFile{}, err
	}
	return signedFile{Data: data, Signature: sig}, nil
}

// drain remembers durably that a life is drained, if it is the present one and no later one can begin by a ticket that is out. allow is asked last.
func (l *lives) drain(d statement.Drained, now time.Time, allow func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.load(d.Server)
	switch {
	case err != nil:
		return err
	case v.Epoch == 0 || v.Epoch != d.Epoch:
		return join.Refuse(join.LifeUnknown, "life %d of %q is not the present one, which is %d", d.Epoch, d.Server, v.Epoch)
	case v.Revoked:
		return join.Refuse(join.LifeRevoked, "life %d of %q is revoked", v.Epoch, d.Server)
	case !now.Before(v.Ends) || d.Expires.After(v.Ends):
		return join.Refuse(join.LifeOver, "life %d of %q ends at %s, before the statement", v.Epoch, d.Server, v.Ends.Format(time.RFC3339))
	case v.Signed > v.Epoch:
		return join.Refuse(join.TicketAhead, "a ticket for life %d of %q is out", v.Signed, d.Server)
	}
	if err := allow(); err != nil {
		return err
	}
	if d.Expires.After(v.Drained) {
		v.Drained = d.Expires
	}
	if err := l.save(v); err != nil {
		return err
	}
	l.drained[d.Server] = true
	return nil
}

// heldBack refuses what would put another machine in the place of one that an engineer may be on.
func heldBack(v life) error {
	return join.Refuse(join.LifeDrained, "life %d of %q is drained for an engineer until %s", v.Epoch, v.Server, v.Drained.Format(time.RFC3339))
}

// takers refuses a list that names a life which was drained for an engineer.
func (l *lives) takers(list checkin.List, domain string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range list.Servers {
		if name := strings.TrimSuffix(e.Name, "."+domain); l.drained[name] {
			return join.Refuse(join.LifeDrained, "the list names %q, whose life was drained for an engineer", e.Name)
		}
	}
	return nil
}

// recall reads which lives are drained.
func (l *lives) recall() error {
	l.drained = map[string]bool{}
	files, err := filepath.Glob(filepath.Join(l.dir, "*.json"))
	if err != nil {
		return fmt.Errorf("reading the signer's state: %w", err)
	}
	for _, path := range files {
		v, err := l.load(strings.TrimSuffix(filepath.Base(path), ".json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !v.Drained.IsZero() {
			l.drained[v.Server] = true
		}
	}
	return nil
}
