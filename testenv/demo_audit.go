package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"mayfly/internal/audit"
)

// markAudit remembers where the audit log, and what strangers caused, end now.
func (d *demo) markAudit() (err error) {
	d.refused = 0
	if err := audit.ReadRefused(d.auditDir(), func([]byte) error { d.refused++; return nil }); err != nil {
		return fmt.Errorf("reading counts of refusals: %w", err)
	}
	d.audit, err = audit.Read(d.auditDir(), d.audit, func(uint64, []byte) error { return nil })
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	return nil
}

// awaitReason waits until the audit log, after the mark, gives the reason.
func (d *demo) awaitReason(ctx context.Context, reason string) error {
	return d.awaitFresh(ctx, func(fresh []byte) error {
		if !bytes.Contains(fresh, []byte(`"reason":"`+reason+`"`)) {
			return fmt.Errorf("the audit log does not say %s", reason)
		}
		return nil
	})
}

// awaitFresh waits until what the audit log says after the mark holds.
func (d *demo) awaitFresh(ctx context.Context, holds func(fresh []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, auditLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		fresh, err := d.freshAudit()
		if err != nil {
			return err
		}
		if err = holds(fresh); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; since then the audit log says:\n%s", err, fresh)
		case <-tick.C:
		}
	}
}

// freshAudit is what the log, and the counts of refusals, say since the mark, one record a line.
func (d *demo) freshAudit() ([]byte, error) {
	var fresh []byte
	_, err := audit.Read(d.auditDir(), d.audit, func(_ uint64, text []byte) error {
		fresh = append(append(fresh, text...), '\n')
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	n := 0
	err = audit.ReadRefused(d.auditDir(), func(text []byte) error {
		if n++; n > d.refused {
			fresh = append(append(fresh, text...), '\n')
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading counts of refusals: %w", err)
	}
	return fresh, nil
}

// awaitAudit gives what has just ended the time to be written down.
func (d *demo) awaitAudit(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, auditLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		said, err := d.auditHolds()
		if err == nil {
			return said, nil
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-tick.C:
		}
	}
}

// auditHolds verifies the whole log and counts closing records.
func (d *demo) auditHolds() (string, error) {
	key, err := audit.ReadVerifier(filepath.Join(d.auditDir(), audit.KeyName+".pub"))
	if err != nil {
		return "", err
	}
	report, err := audit.Verify(d.auditDir(), audit.Trusted{Log: key})
	if err != nil {
		return "", err
	}
	logins, closed := map[string]int{}, map[string]int{}
	accepted, test := 0, 0
	n, err := audit.Read(d.auditDir(), 0, func(_ uint64, line []byte) error {
		var r struct {
			Event  string
			Record struct {
				Connection, Outcome string
				Test                bool
			}
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		switch r.Event {
		case "login":
			logins[r.Record.Connection]++
		case "connection":
			closed[r.Record.Connection]++
			if r.Record.Outcome == "accepted" {
				accepted++
				if r.Record.Test {
					test++
				}
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	for id, k := range closed {
		if k != 1 {
			return "", fmt.Errorf("connection %s has %d closing records", id, k)
		}
	}
	for id, k := range logins { // all of them are over by now
		if k != 1 || closed[id] != 1 {
			return "", fmt.Errorf("connection %s has %d login and %d closing records", id, k, closed[id])
		}
	}
	if accepted == 0 || len(logins) < accepted || test != accepted {
		return "", fmt.Errorf("of %d accepted logins %d are marked as made with a test key", accepted, test)
	}
	return fmt.Sprintf("%d records, %d accepted and %d refused connections closed, every login marked as a test key's; root hash %s over %d", n, accepted, len(closed)-accepted, report.Root, report.Size), nil
}
