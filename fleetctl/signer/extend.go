package signer

import (
	"errors"
	"fmt"
	"time"

	"mayfly/policies/ledger"
	"mayfly/rebuild/extension"
	"mayfly/rebuild/join"
)

type extendRequest struct {
	Data       []byte `json:"data"` // exact bytes
	Signatures []byte `json:"signatures"`
}

type extendAnswer struct {
	Server string    `json:"server"`
	Epoch  uint64    `json:"epoch"`
	Ends   time.Time `json:"ends"`
}

type extendRecord struct {
	Server string    `json:"server"`
	Epoch  uint64    `json:"epoch"`
	Until  time.Time `json:"until"`
	SHA256 string    `json:"sha256"`
	People []string  `json:"people"`
	Reason string    `json:"reason"`
	Test   bool      `json:"test"`
}

// extend lets the present life of a server go on, by what approvers signed: until then it gets certificates. The ledger has it before anything
// else does. Asked again with what is in force already, it says so.
func (s *server) extend(r extendRequest, now time.Time) (extendAnswer, error) {
	b, err := s.rules.bundle(now)
	if err != nil {
		return extendAnswer{}, err
	}
	claim, err := extension.Parse(r.Data) // who signed comes next: without a name nobody knows of which life
	if err != nil {
		return extendAnswer{}, join.Refuse(extension.Malformed, "%v", err)
	}
	s.lives.mu.Lock()
	defer s.lives.mu.Unlock()
	v, err := s.lives.load(claim.Server)
	if err != nil {
		return extendAnswer{}, err
	}
	e, people, err := extension.Open(s.rules.trusts(), r.Data, r.Signatures, v.Server, v.Epoch, now)
	if err != nil {
		return extendAnswer{}, refusedExtension(err)
	}
	if _, ok := b.Inventory.RebuiltServer(v.Server); !ok {
		return extendAnswer{}, join.Refuse(join.ServerUnknown, "no server %q in fleet %q", v.Server, b.Inventory.Name)
	}
	switch {
	case v.Revoked:
		return extendAnswer{}, join.Refuse(join.LifeRevoked, "life %d of %q is revoked", v.Epoch, v.Server)
	case !now.Before(v.Ends):
		return extendAnswer{}, join.Refuse(join.LifeOver, "life %d of %q ended at %s", v.Epoch, v.Server, v.Ends.Format(time.RFC3339))
	case v.Extended > 0 && e.Until.Equal(v.Ends):
		return extendAnswer{v.Server, v.Epoch, v.Ends}, nil
	}
	next, err := extension.Life{Began: v.Began, Ends: v.Ends, Times: v.Extended}.Extend(e)
	if err != nil {
		return extendAnswer{}, refusedExtension(err)
	}
	if err := s.book.extend(e, r); err != nil {
		return extendAnswer{}, err
	}
	err = s.log.Append("extend", extendRecord{Server: v.Server, Epoch: v.Epoch, Until: e.Until, SHA256: sum(r.Data), People: people, Reason: e.Reason, Test: b.Inventory.Test})
	if err != nil {
		return extendAnswer{}, err
	}
	v.Ends, v.Extended = next.Ends, next.Times
	if err := s.lives.save(v); err != nil {
		return extendAnswer{}, err
	}
	return extendAnswer{v.Server, v.Epoch, v.Ends}, nil
}

func refusedExtension(err error) error {
	if r, ok := errors.AsType[*extension.Refusal](err); ok {
		return join.Refuse(r.Reason, "%v", r.Err)
	}
	return err
}

// extend logs that a life may go on, with the people's signatures.
func (b *book) extend(e *extension.Extension, r extendRequest) error {
	if b == nil {
		return nil
	}
	v := b.server(e.Server)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.epoch != e.Epoch || v.ended {
		return join.Refuse(extension.OtherLife, "the ledger has life %d of %q as the present one", v.epoch, e.Server)
	}
	record := ledger.Extend{Kind: ledger.Kind, Server: e.Server, Epoch: e.Epoch, Deadline: e.Until, Statement: string(r.Data), Signatures: string(r.Signatures)}
	if err := record.Check(); err != nil {
		return join.Refuse(join.RequestInvalid, "%v", err)
	}
	if err := b.log.Append(ledger.EventExtend, record); err != nil {
		return fmt.Errorf("logging that life %d of %q goes on: %w", e.Epoch, e.Server, err)
	}
	v.deadline = e.Until
	return nil
}
