package authority

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/audit"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
)

// Files of a directory of orders.
const (
	usedDir = "used"
	logDir  = "log" // a log of its own, with its own key
)

// Act decides an order in the process that will carry it out, uses the request up, and puts it on record in dir, which several processes of one user
// share: "used" is which requests were, "log" the log NAME of both. When it returns without an error, and then alone, the order may be carried out.
func Act(dir, name string, b *bundle.Bundle, asked request.Order, s *request.Signed, now time.Time) (d request.Decision, err error) {
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
	if d, err = o.Decide(b, asked, s, now); err == nil {
		err = o.Begin(b, asked, d, s, now)
	}
	return d, errors.Join(err, log.Close())
}
