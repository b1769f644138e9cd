package witness

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

// maxLogs bounds the logs of one witness.
const maxLogs = 64

// Options are what a witness is made of.
type Options struct {
	Trust *trust.Trust
	// Follow returns the newest trust policy and the steps to it from Trust, and remembers it; nil: Trust stays. It is asked for each publication.
	Follow func() (*trust.Trust, []trust.Change, error)

	Key   ssh.Signer      // one of its keys in the trust policy
	State string          // directory
	Logs  []note.Verifier // whose checkpoints it cosigns; a log's name is its origin
	Log   *slog.Logger
}

// Witness is the service. Its methods may be called at once.
type Witness struct {
	trust  *trust.Trust // believed from the start
	follow func() (*trust.Trust, []trust.Change, error)
	signer ssh.Signer
	name   string
	logs   []note.Verifier
	log    *slog.Logger

	mu     sync.Mutex // of the memory and what it holds; every change is on disk before it is told
	memory *memory
	newest map[string]newest // by subject
}

// LeastFalls is the reason code of a release under which an older one would boot again than under the one before.
const LeastFalls = "release_least_falls"

// Refusal is what a witness does not do, with its reason code.
type Refusal struct {
	Code   string
	Detail string
	status int
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }

func refuse(status int, code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...), status: status}
}

// Open makes a witness of its options. Close gives its state directory back.
func Open(o Options) (*Witness, error) {
	if o.Follow == nil {
		o.Follow = func() (*trust.Trust, []trust.Change, error) { return o.Trust, nil, nil }
	}
	now, _, err := o.Follow()
	if err != nil {
		return nil, err
	}
	name, ok := now.Witness(trust.FormatKey(o.Key.PublicKey()))
	if !ok {
		return nil, hint.New(&Refusal{Code: "stranger", Detail: ssh.FingerprintSHA256(o.Key.PublicKey()) + " is no witness's key in the trust policy"},
			"fleetctl init --witness NAME=PUBFILE names the witnesses, once")
	}
	if len(o.Logs) > maxLogs {
		return nil, fmt.Errorf("%d logs: at most %d", len(o.Logs), maxLogs)
	}
	m, err := openMemory(o.State)
	if err != nil {
		return nil, err
	}
	w := &Witness{trust: o.Trust, follow: o.Follow, signer: o.Key, name: name, logs: o.Logs, log: o.Log, memory: m, newest: map[string]newest{}}
	if err := w.recall(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return w, nil
}

// recall takes up what was remembered, as if it were published now.
func (w *Witness) recall() error {
	for name, of := range subjects {
		p, found, err := w.memory.publication(of)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		_, steps, err := w.follow()
		if err != nil {
			return err
		}
		known, err := of.open(w.trust, p)
		for _, s := range steps { // it was published under one of them
			if err != nil {
				known, err = of.open(s.Trust, p)
			}
		}
		if err != nil {
			return hint.New(fmt.Errorf("%s is no memory of this fleet: %v", w.memory.path(of.file), err), "--state names this witness's own directory, one for each fleet")
		}
		w.newest[name] = known
	}
	return nil
}

// Close gives the state directory back.
func (w *Witness) Close() error { return w.memory.close() }

// Name is the witness's in the trust policy.
func (w *Witness) Name() string { return w.name }

// Newest is the newest version seen of a subject, 0 before the first.
func (w *Witness) Newest(subject string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest[subject].version
}

// Publish takes a file, if enough people signed it and it is newer than what is known of its subject. The known one again changes nothing.
func (w *Witness) Publish(p witness.Publication) (version uint64, err error) {
	of, ok := subjects[p.Subject]
	if !ok {
		return 0, refuse(400, "publication_malformed", "unknown subject %q", p.Subject)
	}
	now, _, err := w.follow()
	if err != nil {
		w.log.Error("the trust policy cannot be followed", "error", err)
		return 0, refuse(503, "trust_not_followed", "%v", err)
	}
	next, err := of.open(now, p)
	if code, detail, refused := refusalOf(err); refused {
		return 0, refuse(403, code, "%v", detail)
	}
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch known := w.newest[p.Subject]; {
	case next.version < known.version:
		return 0, refuse(409, of.older, "version %d is known", known.version)
	case next.version == known.version && next.sha256 == known.sha256:
		return next.version, nil
	case next.version == known.version:
		err := w.memory.keepFork(of, next.version, next.sha256, p)
		w.log.Error("TWO DIFFERENT "+of.many+" OF ONE VERSION ARE SIGNED: the approvers made both, or their keys are not theirs alone",
			"version", next.version, "known", known.sha256, "other", next.sha256, "evidence", w.memory.dir, "error", err)
		return 0, refuse(409, of.forked, "version %d is known with sha256 %s, and this is %s", next.version, known.sha256, next.sha256)
	case next.least < known.least:
		// What may not boot any more never does again: to go back, an older image is signed under a higher version.
		return 0, refuse(409, LeastFalls, "release %d says that none older than %d boots any more, and this one says %d", known.version, known.least, next.least)
	}
	if err := w.memory.remember(of, p); err != nil {
		return 0, err
	}
	w.newest[p.Subject] = next
	w.log.Info("newest "+p.Subject, "version", next.version, "sha256", next.sha256)
	return next.version, nil
}

// Answer says which version of a subject is the newest.
func (w *Witness) Answer(q witness.Question, now time.Time) ([]byte, error) {
	if q.Fleet != w.trust.Fleet {
		return nil, refuse(404, "other_fleet", "this is a witness of fleet %s", w.trust.Fleet)
	}
	w.mu.Lock()
	known := w.newest[q.Subject]
	w.mu.Unlock()
	if known.version == 0 {
		return nil, refuse(404, "nothing_known", "no %s was published here", q.Subject)
	}
	return witness.SignRelease(w.signer, w.name, q, known.version, known.least, known.sha256, now)
}

// cosigner is how others check this witness's cosignatures.
func (w *Witness) cosigner() string {
	c, err := witness.NewCosigner(w.name, trust.FormatKey(w.signer.PublicKey()))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(c.VerifierKey())
}
