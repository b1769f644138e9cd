package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
)

// ledgerOlder is the reason of a refusal: the ledger was put back from an older copy.
const ledgerOlder = "ledger_older"

const askWitness = 5 * time.Second // that one has to answer when serve begins: one that does not is asked later, as always

// ledgerNotOlder refuses a ledger that is older than what a witness has cosigned: going on from it would fork it. The signer finds one that is older
// than its own note by itself; where that note was put back as well, only the witnesses know.
func (d state) ledgerNotOlder(ctx context.Context, t *trust.Trust, witnesses []string) error {
	keys, err := ledger.KeysOf(t)
	if err != nil || len(keys.Ledger) == 0 || len(witnesses) == 0 {
		return err
	}
	signed, err := durable.ReadRegular(filepath.Join(d.ledger(), audit.CheckpointFile), audit.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the signer begins it, or says that it was taken away
	}
	if err != nil {
		return fmt.Errorf("reading the ledger: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askWitness)
	defer cancel()
	older := make([]error, len(witnesses))
	var wg sync.WaitGroup
	for i, url := range witnesses {
		wg.Go(func() {
			_, err := audit.OfferOnce(ctx, d.ledger(), signed, url, keys.Witnesses)
			if r, ok := errors.AsType[audit.Rejection](err); ok && r.Seen > r.Size {
				older[i] = fmt.Errorf("%s: the ledger here has %d entries, and witness %s has cosigned %d", ledgerOlder, r.Size, url, r.Seen)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(older...); err != nil {
		return command.Refuse(hint.New(err, "put back %s and %s as they were last; if that witness is wrong, take it out of the inventory", d.ledger(), d.path("signer")))
	}
	return nil
}
