package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/big"
)

// Numbers of the TPM library specification, part 2.
const (
	generated       = 0xff544347 // TPM_GENERATED_VALUE: no key signs other data that begins so
	attestQuote     = 0x8018     // TPM_ST_ATTEST_QUOTE
	algSHA256       = 0x000b
	algECDSA        = 0x0018
	endorsement     = 0x4000000b // TPM_RH_ENDORSEMENT
	maxExtra        = 64
	selectionLength = 3
)

// quote is a TPMS_ATTEST of type quote.
type quote struct {
	signer    []byte // qualified name of the key
	extra     []byte
	clock     uint64 // ms of the TPM's time
	resets    uint32
	restarts  uint32
	safe      bool // the clock was not set back by a loss of power
	selection [selectionLength]byte
	pcrs      []byte // hash of the registers
}

// selection is PCRs as a bitmap.
func selection() (s [selectionLength]byte) {
	for _, pcr := range PCRs {
		s[pcr/8] |= 1 << (pcr % 8)
	}
	return s
}

// reader reads big-endian fields; after the first that is not there it reads zeros and has failed.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) number(bytes int) (n uint64) {
	for _, b := range r.take(bytes) {
		n = n<<8 | uint64(b)
	}
	return n
}

// sized reads a TPM2B of at most limit bytes.
func (r *reader) sized(limit int) []byte {
	n := int(r.number(2))
	if n > limit {
		r.failed = true
		return nil
	}
	return r.take(n)
}

// parseQuote accepts one bank, SHA-256, and nothing after it.
func parseQuote(data []byte) (quote, error) {
	var q quote
	if len(data) > MaxQuote {
		return q, errors.New("too long")
	}
	r := &reader{rest: data}
	if r.number(4) != generated || r.number(2) != attestQuote {
		return q, errors.New("not said by a TPM as a quote")
	}
	q.signer = r.sized(len(nameAlg) + sha256.Size)
	q.extra = r.sized(maxExtra)
	q.clock = r.number(8)
	q.resets, q.restarts = uint32(r.number(4)), uint32(r.number(4))
	safe := r.number(1)
	q.safe = safe == 1
	r.take(8) // version of the TPM's own firmware
	if r.number(4) != 1 || r.number(2) != algSHA256 || r.number(1) != selectionLength || r.failed {
		return q, errors.New("not of one bank of registers, SHA-256")
	}
	copy(q.selection[:], r.take(selectionLength))
	q.pcrs = r.sized(sha256.Size)
	if r.failed || len(r.rest) != 0 || safe > 1 || len(q.pcrs) != sha256.Size {
		return q, errors.New("not in the form of a quote")
	}
	return q, nil
}

// qualifiedName is the name of a primary key of the endorsement hierarchy: the one hierarchy, beside the firmware's, whose keys see the
// true count of resets.
func qualifiedName(area []byte) []byte {
	return name(append(binary.BigEndian.AppendUint32(nil, endorsement), name(area)...))
}

// checkSignature checks a TPMT_SIGNATURE: ECDSA with SHA-256.
func checkSignature(key *ecdsa.PublicKey, data, sig []byte) error {
	if len(sig) > MaxSignature {
		return refuse(BadSignature, "too long")
	}
	r := &reader{rest: sig}
	alg, hash := r.number(2), r.number(2)
	x, y := r.sized(coordinate), r.sized(coordinate)
	if r.failed || len(r.rest) != 0 || alg != algECDSA || hash != algSHA256 {
		return refuse(BadSignature, "not in the form of an ECDSA signature with SHA-256")
	}
	h := sha256.Sum256(data)
	if !ecdsa.Verify(key, h[:], new(big.Int).SetBytes(x), new(big.Int).SetBytes(y)) {
		return refuse(BadSignature, "the quote is not signed with the attestation key")
	}
	return nil
}

// registers are the values behind a quote, in the order of PCRs.
func registers(data []byte) (map[int]Digest, error) {
	if len(data) != PCRBytes {
		return nil, errors.New("not the registers that are quoted")
	}
	m := make(map[int]Digest, len(PCRs))
	for i, pcr := range PCRs {
		m[pcr] = Digest(data[i*sha256.Size:])
	}
	return m, nil
}

// checkQuote is all that a quote says but for what the registers mean.
func checkQuote(key *ecdsa.PublicKey, e Evidence, want Expected) (quote, map[int]Digest, error) {
	if err := checkSignature(key, e.Quote, e.Signature); err != nil {
		return quote{}, nil, err
	}
	q, err := parseQuote(e.Quote)
	if err != nil {
		return quote{}, nil, refuse(Malformed, "the quote: %w", err)
	}
	extra := Qualifying(want.Nonce, want.Secret, want.Bound)
	switch {
	case !bytes.Equal(q.extra, extra[:]):
		return quote{}, nil, refuse(NonceWrong, "the quote is of another challenge or ticket, or of other keys")
	case !bytes.Equal(q.signer, qualifiedName(e.AK)):
		return quote{}, nil, refuse(AKRefused, "the attestation key is none of the endorsement hierarchy")
	case q.selection != selection():
		return quote{}, nil, refuse(Malformed, "the quote is of other registers")
	}
	values, err := registers(e.PCRs)
	if h := sha256.Sum256(e.PCRs); err != nil || !bytes.Equal(h[:], q.pcrs) {
		return quote{}, nil, refuse(Malformed, "the registers that came are not those that are quoted")
	}
	if want.Before != nil && q.resets <= *want.Before {
		return quote{}, nil, refuse(NotRestarted, "the TPM was reset %d times, and %d times at the server's last life", q.resets, *want.Before)
	}
	return q, values, nil
}
