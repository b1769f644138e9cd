package main

import (
	"crypto/ed25519"
	"time"

	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
)

// shownLife hands the tunnel the proof that the fleet's public ledger has this life, for clients that ask for it. One that they would not
// believe is left out: there will be another.
func (m *machine) shownLife(l *join.Ledger) {
	if l == nil || len(l.Proof) == 0 || m.gate != nil {
		return
	}
	public, _ := m.keys.tls.Public().(ed25519.PublicKey)
	begin, err := believedLife(m.papers.trust, m.papers.ticket.Server, public, l.Proof, time.Now())
	if err == nil {
		err = writeOwned(tunnelLife, l.Proof, 0o644, tunnelUID)
	}
	if err != nil {
		m.con.stage("proof of this life left out: %v", err)
		return
	}
	m.con.stage("the ledger has this life: entry %d, %s", l.Index, begin.Evidence)
}

// believedLife checks a proof as a client does that asks for as little as it can.
func believedLife(t *trust.Trust, server string, key ed25519.PublicKey, proof []byte, now time.Time) (ledger.Begin, error) {
	keys, err := ledger.KeysOf(t)
	if err != nil {
		return ledger.Begin{}, err
	}
	return keys.Life(ledger.RequireLogged, server, key, proof, now)
}
