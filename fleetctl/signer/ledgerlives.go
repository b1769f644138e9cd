package signer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// server returns what the ledger has of a server.
func (b *book) server(name string) *entered {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.lives[name]
	if v == nil {
		v = &entered{}
		b.lives[name] = v
	}
	return v
}

// has tells whether the ledger has any life of a server. Asking makes nothing.
func (b *book) has(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lives[name] != nil
}

// begin logs a life before it has a certificate, and the end of the one before if nobody has said that it was over. It returns the record's number.
//
// The machine can not have booted this life before its ticket was made, and the signer signs no ticket that says a later time than its own: so
// began is never later than the boot, and the life never older than deadline - began.
func (b *book) begin(t *trust.Trust, tk *ticket.Ticket, v life, evidence string, now time.Time) (uint64, error) {
	host, err := join.HostKey(v.HostKey)
	if err != nil {
		return 0, join.Refuse(join.RequestInvalid, "host_key: %v", err)
	}
	hostHash := sha256.Sum256(host.Marshal())
	b.releases.RLock()
	defer b.releases.RUnlock()
	s, err := b.may(t, tk.Release, now)
	if err != nil {
		return 0, err
	}
	old := b.server(tk.Server)
	old.mu.Lock()
	defer old.mu.Unlock()
	if old.epoch > tk.Epoch {
		return 0, join.Refuse(join.TicketOlder, "the ledger has life %d of %q", old.epoch, tk.Server)
	}
	if err := b.over(tk.Server, old, ledger.Superseded, now); err != nil {
		return 0, err
	}
	r := ledger.Begin{Kind: ledger.Kind, Server: tk.Server, Epoch: tk.Epoch, Release: s.Version, ReleaseSHA256: tk.Release,
		Began: made(tk, now), Deadline: v.Ends, Evidence: evidence, TLSKey: v.TLSKey, HostKey: hex.EncodeToString(hostHash[:])}
	if err := r.Check(); err != nil {
		return 0, join.Refuse(join.RequestInvalid, "%v", err)
	}
	index, err := b.log.AppendIndexed(ledger.EventBegin, r)
	if err != nil {
		return 0, fmt.Errorf("logging life %d of %q: %w", tk.Epoch, tk.Server, err)
	}
	old.epoch, old.index, old.deadline, old.ended = tk.Epoch, index, r.Deadline, false
	return index, nil
}

// made is when a ticket was made.
func made(t *ticket.Ticket, now time.Time) time.Time {
	at := t.Deadline.Add(-time.Duration(t.MaxAge) * time.Second)
	if at.After(now) {
		at = now
	}
	return at.UTC().Truncate(time.Second)
}

// over logs the end of a life, if it is not over. Past its deadline that is all there is to say. The caller holds it.
func (b *book) over(server string, v *entered, reason string, now time.Time) error {
	if v.epoch == 0 || v.ended {
		return nil
	}
	r := ledger.End{Kind: ledger.Kind, Server: server, Epoch: v.epoch, Ended: now.UTC().Truncate(time.Second), Reason: reason}
	if !r.Ended.Before(v.deadline) {
		r.Ended, r.Reason = v.deadline, ledger.Passed
	}
	if err := b.log.Append(ledger.EventEnd, r); err != nil {
		return fmt.Errorf("logging the end of life %d of %q: %w", v.epoch, server, err)
	}
	v.ended = true
	return nil
}

// end logs that a server's life is over, if it is this one or an earlier one, and says whether there was anything to log.
func (b *book) end(server string, through uint64, reason string, now time.Time) (bool, error) {
	v := b.server(server)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.epoch == 0 || v.ended || v.epoch > through {
		return false, nil
	}
	return true, b.over(server, v, reason, now)
}

// entry is the number of the record of a life.
func (b *book) entry(server string, epoch uint64) (uint64, bool) {
	v := b.server(server)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.index, v.epoch == epoch
}

// isOver says whether the ledger has the end of a life, or a later one.
func (b *book) isOver(server string, epoch uint64) bool {
	v := b.server(server)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.epoch > epoch || v.epoch == epoch && v.ended
}
