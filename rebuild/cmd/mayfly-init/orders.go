package main

import (
	"errors"
	"time"

	"mayfly/rebuild/extension"
	"mayfly/rebuild/join"
	"mayfly/rebuild/order"
)

// maxOrders is how many orders a life keeps in mind. Each is in force for minutes, and the first one that is good ends the life.
const maxOrders = 64

// span is the life that a machine has from the kernel's start, and what was added to it.
type span struct {
	limit *deadline
	up    func() (time.Duration, error)
	until time.Time // of the last extension
	times int
}

// extend takes an extension that was verified. One that it has already changes nothing.
func (s *span) extend(e *extension.Extension, now time.Time) error {
	if e.Until.Equal(s.until) {
		return nil
	}
	up, err := s.up()
	if err != nil {
		return err
	}
	l := extension.Life{Began: now.Add(-up), Ends: now.Add(s.limit.left(up)), Times: s.times}
	if s.times > 0 {
		l.Ends = s.until
	}
	l, err = l.Extend(e)
	if err != nil {
		return err
	}
	s.limit.extend(up + e.Until.Sub(now))
	s.until, s.times = l.Ends, l.Times
	return nil
}

// takeExtension lets the machine live longer, if as many approvers as the trust policy asks say so. A machine that lets its users go does not
// come back.
func (m *machine) takeExtension(x join.Signed, now time.Time) error {
	m.policy.Lock()
	defer m.policy.Unlock()
	e, people, err := extension.Open(m.papers.trust, x.File, x.Sig, m.papers.ticket.Server, m.papers.ticket.Epoch, now)
	if err == nil {
		m.mu.Lock()
		if m.draining {
			err = extension.Refuse(extension.Late, "the machine drains")
		}
		m.mu.Unlock()
	}
	before := m.span.until
	if err == nil {
		err = m.span.extend(e, now)
	}
	if r, ok := errors.AsType[*extension.Refusal](err); ok {
		return refuse(r.Reason, "%w", r.Err)
	}
	if err == nil && !m.span.until.Equal(before) {
		m.con.stage("life goes on until %s, by %v", e.Until.Format(time.RFC3339), people)
	}
	return err
}

// takeOrder starts the machine anew, if the signer says so of this life. The order counts once.
func (m *machine) takeOrder(x join.Signed, now time.Time) error {
	m.policy.Lock()
	defer m.policy.Unlock()
	o, err := order.Open(m.papers.trust, x.File, x.Sig, m.papers.ticket.Server, m.papers.ticket.Epoch, now)
	switch {
	case err != nil:
	case m.orders[o.Nonce]:
		err = order.Refuse(order.Used, "it was here before")
	case len(m.orders) >= maxOrders:
		err = order.Refuse(order.Used, "%d orders were", len(m.orders))
	}
	if r, ok := errors.AsType[*order.Refusal](err); ok {
		return refuse(r.Reason, "%w", r.Err)
	}
	if err != nil {
		return err
	}
	if m.orders == nil {
		m.orders = make(map[string]bool)
	}
	m.orders[o.Nonce] = true
	m.con.stage("order: %s", o.Do)
	go m.restart("signed order") // it does not return
	return nil
}
