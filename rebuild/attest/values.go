package attest

import (
	"crypto/sha256"

	"mayfly/rebuild/attest/register"
)

// Digest is a SHA-256, which is also what a register holds.
type Digest = [sha256.Size]byte

// released returns what ReleasePCR holds after what mayfly-stub measures and nothing else.
func released(m register.Measured) Digest {
	var pcr Digest
	for _, d := range m.InOrder() {
		pcr = extend(pcr, d)
	}
	return pcr
}

// extend is the TPM's operation on a register.
func extend(pcr, d Digest) Digest { return sha256.Sum256(append(pcr[:], d[:]...)) }

// Bound is what a quote is bound to, beside nonce and secret: the bytes of the join request.
type Bound struct {
	Ticket, CSR, HostKey, TunnelKey []byte
}

// Qualifying returns the data that the quote has to carry.
func Qualifying(nonce, secret []byte, b Bound) Digest {
	h := sha256.New()
	h.Write([]byte(quoteContext))
	h.Write(nonce)
	h.Write(secret)
	for _, part := range [][]byte{b.Ticket, b.CSR, b.HostKey, b.TunnelKey} {
		d := sha256.Sum256(part)
		h.Write(d[:])
	}
	return Digest(h.Sum(nil))
}
