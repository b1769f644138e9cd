package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"
)

// Reason codes of a server whose life the ledger does not show.
const (
	NotLogged   = "server_not_logged"   // no proof that the ledger has a life of this server with this key
	NotAttested = "server_not_attested" // it has, and no TPM showed what was booted
	LifeOver    = "server_life_over"    // it has, and by its deadline the life is over
)

// What a client may ask of a server's life.
const (
	RequireNothing  = ""
	RequireLogged   = "logged"
	RequireAttested = "attested"
)

// IsRequirement tells whether a client may ask for this.
func IsRequirement(word string) bool {
	return word == RequireNothing || word == RequireLogged || word == RequireAttested
}

// Life checks what a server shows of its life against the key that its certificate has: the ledger has begun a life of this server with this
// key, which may still run. Asked for nothing it is content with nothing. Its error is a *Refusal.
func (k Keys) Life(require, server string, key ed25519.PublicKey, proof []byte, now time.Time) (Begin, error) {
	if require == RequireNothing {
		return Begin{}, nil
	}
	if len(proof) == 0 {
		return Begin{}, refuse(NotLogged, "it shows no proof of its life")
	}
	p, err := k.Open(proof)
	if err != nil {
		return Begin{}, &Refusal{NotLogged, err}
	}
	b := p.Entry.Begin
	if b == nil {
		return Begin{}, refuse(NotLogged, "it shows entry %d of the ledger, which begins no life", p.Index)
	}
	hash := sha256.Sum256(key)
	switch {
	case b.Server != server:
		return Begin{}, refuse(NotLogged, "it shows a life of %q", b.Server)
	case len(key) != ed25519.PublicKeySize || b.TLSKey != hex.EncodeToString(hash[:]):
		return Begin{}, refuse(NotLogged, "it shows life %d, which had another key", b.Epoch)
	case !now.Before(b.Deadline):
		return Begin{}, refuse(LifeOver, "life %d was over at %s", b.Epoch, b.Deadline.Format(time.RFC3339))
	case require != RequireLogged && b.Evidence != Attested: // a word that is none asks for the most
		return Begin{}, refuse(NotAttested, "life %d is %s", b.Epoch, b.Evidence)
	}
	return *b, nil
}

// ReasonOf is the code of a refusal, the outermost.
func ReasonOf(err error) string {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	return ""
}
