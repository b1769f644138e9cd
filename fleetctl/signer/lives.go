package signer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/durable"
	"mayfly/rebuild/attest"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// Bounds of a server's life file.
const (
	maxTicketsOfEpoch = 16
	maxLifeFile       = 64 << 10
	// maxEpochStep is how far a ticket's epoch may be ahead of the highest one seen: every life that is begun has a ticket signed, but for
	// those that end before it. Without a bound, one ticket could use up all the epochs that a server will ever have.
	maxEpochStep = 1024
)

// life is the latest life of one server that the signer admitted. It is one file in signer/lives.
type life struct {
	Server  string    `json:"server"`
	Epoch   uint64    `json:"epoch"`
	Tickets []string  `json:"tickets"`  // hashes of the tickets admitted in this epoch, hex; the last one's keys live
	TLSKey  string    `json:"tls_key"`  // SHA-256 of the Ed25519 key, hex
	HostKey string    `json:"host_key"` // authorized_keys form
	Ends    time.Time `json:"ends"`     // no certificate is valid later
	Revoked bool      `json:"revoked"`  // a ticket of it was used twice
	Signed  uint64    `json:"signed"`   // the highest epoch that a ticket was signed for

	Evidence string `json:"evidence,omitempty"` // what is known of its boot
	EK       string `json:"ek,omitempty"`       // hash of the endorsement key of the last life that was attested
	Resets   uint32 `json:"resets,omitempty"`   // of that TPM, then

	Began    time.Time `json:"began,omitzero"`     // its ticket was made then: it booted no earlier
	Extended int       `json:"extended,omitempty"` // how often approvers let it go on

	// What the machine said of itself when it joined: a store that was lost and restored takes the life up again with it (known.go).
	BootID    string    `json:"boot_id,omitempty"`
	TunnelKey string    `json:"tunnel_key,omitempty"`
	Joined    time.Time `json:"joined,omitzero"`
	Release   string    `json:"release,omitempty"` // its version

	// An engineer was let onto this life: no list names it any more, and nobody else begins before this time.
	Drained time.Time `json:"drained,omitzero"`
}

// lives remembers which tickets were admitted, durably.
type lives struct {
	dir string
	mu  sync.Mutex // held over a file's read, decision and write

	drained map[string]bool // servers whose present life is drained; guarded by mu
}

func (l *lives) path(server string) string { return filepath.Join(l.dir, server+".json") }

func (l *lives) load(server string) (life, error) {
	data, err := durable.ReadRegular(l.path(server), maxLifeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return life{Server: server}, nil
	}
	if err != nil {
		return life{}, fmt.Errorf("loading the life of %q: %w", server, err)
	}
	var v life
	if err := canonical.Parse(data, maxLifeFile, &v); err != nil {
		return life{}, fmt.Errorf("loading the life of %q: %w", server, err)
	}
	if v.Server != server {
		return life{}, fmt.Errorf("loading the life of %q: the file is of %q", server, v.Server)
	}
	return v, nil
}

func (l *lives) save(v life) error {
	data, err := canonical.Marshal(v)
	if err != nil {
		return fmt.Errorf("saving the life of %q: %w", v.Server, err)
	}
	return durable.WriteFile(l.path(v.Server), data, 0o600)
}

// begin admits a ticket, once. A second use revokes the life that the first one began. The decision is durable on return. allow is
// asked last: a ticket that is refused anyway uses up nothing that a good one needs.
func (l *lives) begin(t *ticket.Ticket, hash [32]byte, tlsKey string, said join.Request, release string, p proof, ends, now time.Time, allow func() error) (life, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.load(t.Server)
	if err != nil {
		return life{}, err
	}
	h := hex.EncodeToString(hash[:])
	switch {
	case t.Epoch < v.Epoch:
		return life{}, join.Refuse(join.TicketOlder, "ticket of life %d, life %d has begun", t.Epoch, v.Epoch)
	case now.Before(v.Drained):
		return life{}, heldBack(v)
	case t.Epoch > v.Epoch:
		v.Tickets = nil
	case !v.Drained.IsZero():
		return life{}, join.Refuse(join.LifeDrained, "life %d of %q was drained for an engineer: it does not come back", v.Epoch, v.Server)
	case slices.Contains(v.Tickets, h):
		v.Revoked = true
		if err := l.save(v); err != nil {
			return life{}, err
		}
		return life{}, join.Refuse(join.TicketUsed, "the ticket for life %d of %q was used before", t.Epoch, t.Server)
	case v.Revoked:
		return life{}, join.Refuse(join.LifeRevoked, "life %d of %q is revoked", v.Epoch, v.Server)
	case len(v.Tickets) >= maxTicketsOfEpoch:
		return life{}, join.Refuse(join.RateLimited, "%d tickets of life %d were used", len(v.Tickets), t.Epoch)
	}
	if err := allow(); err != nil {
		return life{}, err
	}
	switch {
	case p.Evidence == "": // a used ticket is not asked for proof, and was refused above
		return life{}, fmt.Errorf("beginning life %d of %q: nobody decided what is known of its boot", t.Epoch, t.Server)
	case p.EK == "":
	case p.EK == v.EK && p.Resets <= v.Resets: // again, now that no other life can begin
		return life{}, join.Refuse(attest.NotRestarted, "the TPM was reset %d times, and %d times at the server's last life", p.Resets, v.Resets)
	default:
		v.EK, v.Resets = p.EK, p.Resets
	}
	v.Evidence = p.Evidence
	v.Epoch = t.Epoch
	v.Tickets = append(v.Tickets, h)
	v.TLSKey, v.HostKey, v.Revoked, v.Drained = tlsKey, said.HostKey, false, time.Time{}
	v.BootID, v.TunnelKey, v.Joined, v.Release = said.BootID, said.TunnelKey, now, release
	v.Ends, v.Began, v.Extended = ends, made(t, now), 0
	if err := l.save(v); err != nil {
		return life{}, err
	}
	delete(l.drained, v.Server)
	return v, nil
}

// before returns what is known of a server before a ticket is used: whether it was used, and of the TPM at the last life.
func (l *lives) before(t *ticket.Ticket, hash [32]byte) (used bool, v life, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err = l.load(t.Server)
	return v.Epoch == t.Epoch && slices.Contains(v.Tickets, hex.EncodeToString(hash[:])), v, err
}

// current returns the life that these keys belong to, if it may go on at now.
func (l *lives) current(server, tlsKey, hostKey string, now time.Time) (life, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.load(server)
	switch {
	case err != nil:
		return life{}, err
	case v.Epoch == 0 || v.TLSKey != tlsKey || v.HostKey != hostKey:
		return life{}, join.Refuse(join.LifeUnknown, "no present life of %q has these keys", server)
	case v.Revoked:
		return life{}, join.Refuse(join.LifeRevoked, "life %d of %q is revoked", v.Epoch, server)
	case !now.Before(v.Ends):
		return life{}, join.Refuse(join.LifeOver, "life %d of %q ended at %s", v.Epoch, server, v.Ends.Format(time.RFC3339))
	}
	return v, nil
}

// sign decides whether a ticket of this epoch may be signed, and remembers durably that it may. allow is asked last.
func (l *lives) sign(server string, epoch uint64, now time.Time, allow func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.load(server)
	if err != nil {
		return err
	}
	seen := max(v.Epoch, v.Signed)
	switch {
	case now.Before(v.Drained), epoch == v.Epoch && !v.Drained.IsZero():
		return heldBack(v)
	case epoch < v.Epoch:
		return join.Refuse(join.TicketOlder, "ticket of life %d, life %d of %q has begun", epoch, v.Epoch, server)
	case epoch > seen && epoch-seen > maxEpochStep:
		return join.Refuse(join.TicketAhead, "ticket of life %d, the highest of %q is %d, and the next at most %d further", epoch, server, seen, maxEpochStep)
	}
	if err := allow(); err != nil {
		return err
	}
	if epoch <= v.Signed {
		return nil
	}
	v.Signed = epoch
	return l.save(v)
}

func openLives(dir string) (*lives, error) {
	d := filepath.Join(dir, keyDir, livesDir)
	if err := os.MkdirAll(d, 0o700); err != nil {
		return nil, fmt.Errorf("opening the signer's state: %w", err)
	}
	l := &lives{dir: d}
	return l, l.recall()
}
