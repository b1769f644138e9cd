package authority

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/audit"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
)

// Files of a directory of orders.
const (
	usedDir = "used"
	logDir  = "log" // a log of its own, with its own key
)

// claimOf is what a request is called in a store that several controllers share.
func claimOf(nonce string) string { return store.Shared + "request/" + nonce }

// elsewhere uses a request up for all controllers of one store.
func elsewhere(ctx context.Context, s store.Claims, r request.Request, now time.Time) error {
	holder := rand.Text() // nobody claims it again
	_, err := s.Claim(ctx, claimOf(r.Nonce), holder, r.Expires.Sub(now)+usedFor, now)
	if errors.Is(err, store.ErrClaimed) {
		return request.Refuse(request.Used, "request %s was used before, here or by another controller", r.Nonce)
	}
	return err
}

// Act decides an order in the process that will carry it out, uses the request up, and puts it on record in dir, which several processes of one user
// share: "used" is which requests were, "log" the log NAME of both. s, which may be nil, is the store that other controllers share: a request counts once
// for all of them. When it returns without an error, and then alone, the order may be carried out.
func Act(ctx context.Context, dir, name string, s store.Claims, b *bundle.Bundle, asked request.Order, signed *request.Signed, now time.Time) (d request.Decision, err error) {
	defer func() {
		if err != nil {
			d = request.Decision{}
		}
	}()
	used, err := OpenUsed(filepath.Join(dir, usedDir))
	if err != nil {
		return d, err
	}
	held, err := os.Open(dir) // the log has one writer at a time
	if err != nil {
		return d, fmt.Errorf("opening the log of orders: %w", err)
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	if err := lock(held); err != nil {
		return d, fmt.Errorf("opening the log of orders: %w", err)
	}
	log, err := audit.Open(audit.Options{Dir: filepath.Join(dir, logDir), Name: name})
	if err != nil {
		return d, fmt.Errorf("opening the log of orders: %w", err)
	}
	o := New(used, log)
	if d, err = o.Decide(b, asked, signed, now); err == nil && d.Request != nil && s != nil {
		err = o.Refuse(b, asked, signed, elsewhere(ctx, s, *d.Request, now))
	}
	if err == nil {
		err = o.Begin(b, asked, d, signed, now)
	}
	return d, errors.Join(err, log.Close())
}
