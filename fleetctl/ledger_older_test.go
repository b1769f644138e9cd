package main

import (
	"os"
	"strings"
	"testing"

	"mayfly/policies/ledger"
)

// TestLedgerOlder: a ledger that was put back, with all that the signer knew of it, is not gone on from: the witness knows a newer one.
func TestLedgerOlder(t *testing.T) {
	l := newLedgerLab(t)
	l.life("a", 1, nil)
	l.cosigned()
	older := t.TempDir()
	l.check(os.CopyFS(older, os.DirFS(l.state.ledger())))
	l.goOn()
	l.life("a", 2, func(b *ledger.Begin) { b.Epoch = 2 })
	l.cosigned()
	urls := []string{"http://127.0.0.1:1", l.server.URL} // nobody listens at the first
	if err := l.state.ledgerNotOlder(t.Context(), l.trust, urls); err != nil {
		t.Errorf("the newest: %v", err)
	}
	l.check(os.RemoveAll(l.state.ledger()))
	l.check(os.MkdirAll(l.state.ledger(), 0o755))
	l.check(os.CopyFS(l.state.ledger(), os.DirFS(older)))
	err := l.state.ledgerNotOlder(t.Context(), l.trust, urls)
	if err == nil || !strings.Contains(err.Error(), ledgerOlder) || !strings.Contains(err.Error(), "has cosigned") {
		t.Errorf("an older copy: got %v", err)
	}
	l.check(os.RemoveAll(l.state.ledger()))
	if err := l.state.ledgerNotOlder(t.Context(), l.trust, urls); err != nil {
		t.Errorf("no ledger: %v", err)
	}
}
