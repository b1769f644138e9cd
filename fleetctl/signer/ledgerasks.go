package signer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// Bounds of the ledger's verbs.
const (
	proofPatience = 5 * time.Second // until a checkpoint covers a record: one is signed each second
	proofLook     = 20 * time.Millisecond
)

// openLedger opens the ledger that the trust policy names the key of, and logs that policy.
func (s *server) openLedger(dir string) (*book, error) {
	t := s.rules.trusts()
	if len(t.LedgerKeys) == 0 {
		return nil, nil
	}
	if own := trust.FormatKey(s.keys.ledger.PublicKey()); !slices.Contains(t.LedgerKeys, own) {
		return nil, hint.New(fmt.Errorf("opening the ledger: ledger_keys of the trust policy do not have %s", filepath.Join(dir, keyDir, ledgerKeyFile)),
			"what this signer writes nobody would believe: change the trust policy, or take back the key")
	}
	b, err := openBook(dir, t, s.keys)
	if err != nil {
		return nil, err
	}
	if err := b.follow(t); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// public is the ledger, or a refusal where there is none although the trust policy says so by now.
func (s *server) public() (*book, *trust.Trust, error) {
	t := s.rules.trusts()
	if s.book == nil && len(t.LedgerKeys) > 0 {
		return nil, t, join.Refuse(join.LedgerMissing, "the trust policy names a ledger since the signer was started: start it again")
	}
	if s.book == nil {
		return nil, t, nil
	}
	return s.book, t, s.book.follow(t)
}

// logNamed lets no ticket be signed for a release that is not in the ledger. One that lies where the ticket says, and is signed by enough, is logged now.
func (s *server) logNamed(tk ticket.Ticket, now time.Time) error {
	b, t, err := s.public()
	if b == nil || err != nil {
		return err
	}
	_, err = b.allows(t, tk.Release, now)
	if r, ok := join.IsRefusal(err); !ok || r.Reason != join.ReleaseUnlogged {
		return err
	}
	path, ok := releasePath(tk)
	if !ok {
		return err
	}
	dir := filepath.Join(s.rules.dir, "public", filepath.FromSlash(filepath.Clean("/"+path)))
	data, rerr := durable.ReadRegular(filepath.Join(dir, release.StatementFile), release.MaxStatement)
	sigs, serr := durable.ReadRegular(filepath.Join(dir, release.SignaturesFile), trust.MaxSignatureBytes)
	if rerr != nil || serr != nil || sum(data) != tk.Release {
		return err
	}
	if _, err := b.enter(t, data, sigs, now); err != nil {
		return err
	}
	_, err = b.allows(t, tk.Release, now)
	return err
}

// mayBegin reports whether a life may begin under the ticket's release.
func (s *server) mayBegin(tk *ticket.Ticket, now time.Time) error {
	b, t, err := s.public()
	if b == nil || err != nil {
		return err
	}
	_, err = b.allows(t, tk.Release, now)
	return err
}

// ends is the end of a life that begins now: no later than ticket and release allow, counted from when the ticket was made.
func (s *server) ends(t *ticket.Ticket, now time.Time) time.Time {
	end := now.Add(time.Duration(t.MaxAge) * time.Second)
	if t.Deadline.Before(end) {
		end = t.Deadline
	}
	if s.book != nil {
		s.book.releases.RLock()
		l, ok := s.book.byHash[t.Release]
		s.book.releases.RUnlock()
		if ok {
			if most := made(t, now).Add(time.Duration(l.statement.MaxAge) * time.Second); most.Before(end) {
				end = most
			}
		}
	}
	return end.UTC().Truncate(time.Second)
}

// begun logs that a life has begun.
func (s *server) begun(tk *ticket.Ticket, v life, evidence string, now time.Time) error {
	b, t, err := s.public()
	if b == nil || err != nil {
		return err
	}
	_, err = b.begin(t, tk, v, evidence, now)
	return err
}

// revoked logs the end of a life whose ticket came a second time; err is why that was refused.
func (s *server) revoked(tk *ticket.Ticket, err error, now time.Time) error {
	if r, ok := join.IsRefusal(err); ok && r.Reason == join.TicketUsed && s.book != nil {
		if _, lerr := s.book.end(tk.Server, tk.Epoch, ledger.Revoked, now); lerr != nil {
			return lerr
		}
	}
	return err
}

// entry is where the ledger has a life.
func (s *server) entry(v life) *join.Ledger {
	if s.book == nil {
		return nil
	}
	index, ok := s.book.entry(v.Server, v.Epoch)
	if !ok {
		return nil
	}
	return &join.Ledger{Index: index}
}

type releaseRequest struct {
	Statement  []byte `json:"statement"`
	Signatures []byte `json:"signatures"`
}

// releaseAnswer has the proof under a checkpoint that no witness need have cosigned yet.
type releaseAnswer struct {
	Index uint64 `json:"index"`
	Proof []byte `json:"proof"`
}

// logRelease puts a release into the ledger, which takes the signatures of people and builders and nobody's leave.
func (s *server) logRelease(r releaseRequest, now time.Time) (releaseAnswer, error) {
	if _, err := s.rules.bundle(now); err != nil { // goes on to the trust policy in force; a fleet's first release comes before its first policy
		if refused, ok := join.IsRefusal(err); !ok || refused.Reason != join.BundleMissing {
			return releaseAnswer{}, err
		}
	}
	b, t, err := s.public()
	if err != nil {
		return releaseAnswer{}, err
	}
	if b == nil {
		return releaseAnswer{}, join.Refuse(join.LedgerMissing, "the trust policy of fleet %q names no ledger key", t.Fleet)
	}
	index, err := b.enter(t, r.Statement, r.Signatures, now)
	if err != nil {
		return releaseAnswer{}, err
	}
	tick := time.NewTicker(proofLook)
	defer tick.Stop()
	for end := time.Now().Add(proofPatience); b.log.Checkpoint().Size <= index; <-tick.C {
		if time.Now().After(end) {
			return releaseAnswer{}, errors.Join(fmt.Errorf("no checkpoint covers record %d of the ledger", index), b.log.Healthy())
		}
	}
	proof, err := audit.Prove(b.dir, index)
	if err != nil {
		return releaseAnswer{}, fmt.Errorf("proving record %d of the ledger: %w", index, err)
	}
	return releaseAnswer{Index: index, Proof: proof.Marshal()}, nil
}

type endRequest struct {
	Server  string `json:"server"`
	Through uint64 `json:"through"`
	Reason  string `json:"reason"`
}

type endAnswer struct {
	Logged bool `json:"logged"` // false: no life up to this one was running by the ledger
}

// end logs that a server's life is over. That it is, is the controller's word, and can only make the life look shorter than the deadline that the ledger has.
func (s *server) end(r endRequest, now time.Time) (endAnswer, error) {
	if r.Reason != ledger.Rotated && r.Reason != ledger.Failed {
		return endAnswer{}, join.Refuse(join.RequestInvalid, "reason is %.40q, not %q or %q", r.Reason, ledger.Rotated, ledger.Failed)
	}
	if s.book == nil {
		return endAnswer{}, nil
	}
	if !s.book.has(r.Server) {
		return endAnswer{}, nil
	}
	done, err := s.book.end(r.Server, r.Through, r.Reason, now)
	return endAnswer{Logged: done}, err
}

// counting are the blocks of signatures that count, of approvers and of builders. The rest would only fill the ledger.
func counting(t *trust.Trust, data, sigs []byte) []byte {
	blocks, err := sshsig.Split(sigs, trust.MaxSignatures)
	if err != nil {
		return nil
	}
	var kept []byte
	met := map[string]bool{}
	for _, block := range blocks {
		people := alone(t.Approved(release.Namespace, data, block))
		builders := alone(t.Built(release.BuildNamespace, data, block))
		who := "approver " + people
		if people == "" {
			who = "builder " + builders
		}
		if people == "" && builders == "" || met[who] {
			continue
		}
		met[who] = true
		kept = append(kept, block...)
		if len(block) > 0 && block[len(block)-1] != '\n' {
			kept = append(kept, '\n')
		}
	}
	return kept
}

// alone is whose signature one block is, if it counts.
func alone(people []string, err error) string {
	if short, ok := errors.AsType[*trust.NotApproved](err); ok {
		people = short.Have
	}
	if len(people) != 1 {
		return ""
	}
	return people[0]
}
