package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/internal/pki"
)

// Renewal of a service's certificate: at half of its life, and after a failure again and again.
const (
	renewRetry   = 10 * time.Second
	certifyLimit = 10 * time.Second
)

// certificate is a service's TLS certificate, with a key that was made in RAM and is never written.
type certificate struct {
	signer *signer.Client
	label  string // what the signer knows the service by
	name   string // in the certificate
	key    []byte // PEM
	csr    func(name string) ([]byte, error)
	now    atomic.Pointer[tls.Certificate]
}

func newCertificate(ctx context.Context, s *signer.Client, label, name string) (*certificate, error) {
	key, csr, err := pki.NewKey()
	if err != nil {
		return nil, fmt.Errorf("making the key of %s: %w", name, err)
	}
	c := &certificate{signer: s, label: label, name: name, key: key, csr: csr}
	return c, c.renew(ctx)
}

func (c *certificate) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, certifyLimit)
	defer cancel()
	csr, err := c.csr(c.name)
	if err != nil {
		return fmt.Errorf("certifying %s: %w", c.name, err)
	}
	chain, err := c.signer.Service(ctx, c.label, csr)
	if err != nil {
		return fmt.Errorf("certifying %s: %w", c.name, err)
	}
	pair, err := tls.X509KeyPair(chain, c.key)
	if err != nil {
		return fmt.Errorf("certifying %s: %w", c.name, err)
	}
	c.now.Store(&pair)
	return nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil }

// keep renews until ctx ends.
func (c *certificate) keep(ctx context.Context, log *slog.Logger) {
	for {
		leaf := c.now.Load().Leaf
		wait := max(leaf.NotAfter.Sub(leaf.NotBefore)/2-time.Since(leaf.NotBefore), renewRetry)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := c.renew(ctx); err != nil && ctx.Err() == nil {
			log.Error("renewing", "error", err)
		}
	}
}
