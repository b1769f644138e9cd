package boot

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"mayfly/internal/pki"
	"mayfly/inventory"
)

// certificate is the controller's own, for a key that lives in this process only. It is renewed at half its life.
type certificate struct {
	signer Signer
	keyPEM []byte
	csr    []byte

	mu      sync.Mutex // guards the rest
	current *tls.Certificate
	renewAt time.Time
}

func newCertificate(ctx context.Context, s Signer, name string, now time.Time) (*certificate, error) {
	keyPEM, csrFor, err := pki.NewKey()
	if err != nil {
		return nil, fmt.Errorf("making the controller's key: %w", err)
	}
	csr, err := csrFor(name)
	if err != nil {
		return nil, fmt.Errorf("making the controller's certificate request: %w", err)
	}
	c := &certificate{signer: s, keyPEM: keyPEM, csr: csr}
	return c, c.renew(ctx, now)
}

func (c *certificate) renew(ctx context.Context, now time.Time) error {
	chain, err := c.signer.Service(ctx, inventory.NameController, c.csr)
	if err != nil {
		return fmt.Errorf("getting the controller's certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, c.keyPEM)
	if err != nil {
		return fmt.Errorf("getting the controller's certificate: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = &pair
	c.renewAt = now.Add(pair.Leaf.NotAfter.Sub(now) / 2)
	return nil
}

// due says whether the certificate should be renewed at now.
func (c *certificate) due(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !now.Before(c.renewAt)
}

// retry puts the next attempt off.
func (c *certificate) retry(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewAt = at
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current, nil
}
