package etcd

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Bounds of a plan. etcd takes requests of 1.5 MiB.
const (
	partSize = 512 << 10
	maxParts = 120
	maxPlan  = 512 << 20
)

// parts says where a run's plan lies, compressed and in parts.
type parts struct {
	ID     string `json:"id"`
	Number int    `json:"number"`
	SHA256 string `json:"sha256"` // of the plan, hex
}

func (s *shared) partKey(id string, n int) string {
	return s.key(keyPlan, id, "/", number(uint64(n)))
}

// putPlan writes a plan's parts. They count when a run names them.
func (s *Store) putPlan(ctx context.Context, plan []byte) (p parts, err error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err = z.Write(plan); err == nil {
		err = z.Close()
	}
	if err != nil {
		return p, err
	}
	sum := sha256.Sum256(plan)
	p = parts{ID: rand.Text(), SHA256: hex.EncodeToString(sum[:])}
	if b.Len() > maxParts*partSize || len(plan) > maxPlan {
		return p, fmt.Errorf("the plan is %d bytes, compressed %d: more than etcd is given", len(plan), b.Len())
	}
	for b.Len() > 0 {
		if _, err := s.client.Put(ctx, s.partKey(p.ID, p.Number), string(b.Next(partSize))); err != nil {
			return p, unreachable(err)
		}
		p.Number++
	}
	return p, nil
}

// plan reads a plan and sees that it is the one that was written.
func (s *Store) plan(ctx context.Context, p parts) ([]byte, error) {
	if p.Number > maxParts {
		return nil, fmt.Errorf("its plan has %d parts, more than a plan can have", p.Number)
	}
	var b bytes.Buffer
	for n := range p.Number {
		r, err := s.client.Get(ctx, s.partKey(p.ID, n))
		if err != nil {
			return nil, unreachable(err)
		}
		if len(r.Kvs) == 0 {
			return nil, fmt.Errorf("part %d of %d of its plan is gone", n+1, p.Number)
		}
		b.Write(r.Kvs[0].Value)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		return nil, fmt.Errorf("its plan: %w", err)
	}
	plan, err := io.ReadAll(io.LimitReader(z, maxPlan))
	if err != nil {
		return nil, fmt.Errorf("its plan: %w", err)
	}
	if sum := sha256.Sum256(plan); hex.EncodeToString(sum[:]) != p.SHA256 {
		return nil, errors.New("its plan is not the one that was written")
	}
	return plan, nil
}

// dropPlan removes parts that no run names.
func (s *Store) dropPlan(ctx context.Context, p parts) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialLimit)
	defer cancel()
	_, _ = s.client.Delete(ctx, s.key(keyPlan, p.ID, "/"), clientv3.WithPrefix())
}
