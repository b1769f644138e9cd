package main

import (
	"context"
	"log/slog"
	"strings"

	"mayfly/internal/audit"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
)

// offerLedger takes the checkpoints of the public ledger, which the signer writes, to the witnesses until ctx ends. The signer itself reaches nobody.
func (d state) offerLedger(ctx context.Context, t *trust.Trust, witnesses []string, log *slog.Logger) error {
	keys, err := ledger.KeysOf(t)
	if err != nil {
		return err
	}
	if len(witnesses) == 0 || len(keys.Ledger) == 0 {
		return nil
	}
	audit.Offer(ctx, audit.Offers{Dir: d.ledger(), Log: keys.Ledger, Witnesses: witnesses, Keys: keys.Witnesses, Enough: max(1, keys.Threshold),
		OnRejected: func(r audit.Rejection) {
			level := slog.LevelWarn
			if r.Seen > r.Size || strings.Contains(r.Detail, "another log") || strings.Contains(r.Detail, "does not extend") {
				level = slog.LevelError
			}
			log.Log(ctx, level, "a witness does not cosign the ledger", "witness", r.Witness, "size", r.Size, "seen", r.Seen, "detail", r.Detail)
		}})
	return nil
}
