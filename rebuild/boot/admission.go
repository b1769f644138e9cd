package boot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"mayfly/internal/renewal"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// admission is the HTTP of the join port.
func (s *service) admission() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+join.PathJoin, func(w http.ResponseWriter, r *http.Request) {
		answerUpTo(s, w, r, join.MaxJoin, s.join)
	})
	mux.HandleFunc("POST "+join.PathChallenge, func(w http.ResponseWriter, r *http.Request) {
		answer(s, w, r, s.challenge)
	})
	mux.HandleFunc("POST "+join.PathRenew, func(w http.ResponseWriter, r *http.Request) {
		answer(s, w, r, func(ctx context.Context, q join.RenewRequest) (join.Certificates, error) { return s.renew(ctx, r, q) })
	})
	mux.HandleFunc("POST "+join.PathReport, func(w http.ResponseWriter, r *http.Request) {
		answer(s, w, r, s.report)
	})
	mux.HandleFunc("POST "+join.PathAudit, s.audit)
	mux.HandleFunc("POST "+renewal.Path, func(w http.ResponseWriter, r *http.Request) {
		answer(s, w, r, s.renewHost)
	})
	return mux
}

// answer reads a bounded, strict body and writes the decision: 200, 403 with a reason, 503 busy, 500.
func answer[Q, A any](s *service, w http.ResponseWriter, r *http.Request, decide func(context.Context, Q) (A, error)) {
	answerUpTo(s, w, r, join.MaxRequest, decide)
}

// answerUpTo is answer for a body of at most limit bytes.
func answerUpTo[Q, A any](s *service, w http.ResponseWriter, r *http.Request, limit int, decide func(context.Context, Q) (A, error)) {
	answerWith(s, w, r, s.joins, 0, func(ctx context.Context) (any, error) {
		body, err := join.ReadBody(r.Body, limit)
		if err != nil {
			return nil, err
		}
		q, err := join.Decode[Q](body, limit)
		if err != nil {
			return nil, err
		}
		return decide(ctx, q)
	})
}

// answerWith does one request in one of the places, for which it waits this long.
func answerWith(s *service, w http.ResponseWriter, r *http.Request, places chan struct{}, wait time.Duration, do func(context.Context) (any, error)) {
	a, err := func() (any, error) {
		if !takePlace(r.Context(), places, wait) {
			return nil, join.Refuse(join.Busy, "%d requests in flight", cap(places))
		}
		defer func() { <-places }()
		// A machine that hangs up does not leave a life half begun.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), requestDeadline)
		defer cancel()
		return do(ctx)
	}()
	status := http.StatusOK
	if err != nil {
		refusal, ok := join.IsRefusal(err)
		switch {
		case !ok:
			s.Log.Error("failed", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
			refusal, status = &join.Refusal{Reason: join.ControllerFailed}, http.StatusInternalServerError
		case refusal.Reason == join.Busy:
			status = http.StatusServiceUnavailable
		default:
			status = http.StatusForbidden
		}
		if ok {
			s.Log.Warn("refused", "path", r.URL.Path, "remote", r.RemoteAddr, "reason", refusal.Reason, "detail", refusal.Detail)
		}
		a = refusal
	}
	data, err := join.Encode(a)
	if err != nil {
		s.Log.Error("encoding an answer", "path", r.URL.Path, "error", err)
		status, data = http.StatusInternalServerError, []byte(`{"reason":"controller_failed"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(data); err != nil {
		s.Log.Debug("answering", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
	}
}

// takePlace waits for a place, for a while.
func takePlace(ctx context.Context, places chan struct{}, wait time.Duration) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	if wait == 0 {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// join begins a life: the ticket is marked used in the store before the signer is asked.
func (s *service) join(ctx context.Context, q join.Request) (join.Response, error) {
	if err := q.Check(); err != nil {
		return join.Response{}, err
	}
	now := s.now()
	t, err := ticket.Open(s.Trust, q.Ticket, q.Signature, now)
	if err != nil {
		return join.Response{}, join.RefuseTicket(err)
	}
	if _, ok := s.Fleet.RebuiltServer(t.Server); !ok {
		return join.Response{}, join.Refuse(join.ServerUnknown, "no server %q in fleet %q", t.Server, s.Fleet.Name)
	}
	bundleData, bundleSig := s.Bundle()
	if len(bundleData) == 0 {
		return join.Response{}, join.Refuse(join.BundleMissing, "no signed policy is in force")
	}
	if err := s.use(ctx, t, q, now); err != nil {
		return join.Response{}, err
	}
	present, err := s.Store.Server(ctx, t.Server)
	if err != nil {
		return join.Response{}, err
	}
	if present.Epoch != t.Epoch || present.State != inventory.Booting {
		return join.Response{}, join.Refuse(join.StateWrong, "%q is %s in life %d; the ticket is for booting in life %d", t.Server, present.State, present.Epoch, t.Epoch)
	}
	admitted, err := s.Signer.Admit(ctx, q)
	if r, ok := join.IsRefusal(err); ok && r.Reason == join.Busy {
		// Busy says that nothing was used up, and the ticket is: who comes again with it would be the second.
		return join.Response{}, join.Refuse(join.ControllerFailed, "the signer is busy, and the ticket for life %d of %q is used up", t.Epoch, t.Server)
	}
	if err != nil {
		return join.Response{}, err
	}
	key, err := join.CSRKey(q.CSR)
	if err != nil {
		return join.Response{}, join.Refuse(join.RequestInvalid, "csr: %v", err)
	}
	err = s.Store.Joined(ctx, t.Server, t.Epoch, store.Joined{
		BootID: q.BootID, HostKey: q.HostKey, TunnelKey: q.TunnelKey, TLSKey: join.KeyHash(key),
		Evidence: admitted.Evidence, At: now, Deadline: deadline(t, now),
	})
	if err != nil {
		return join.Response{}, fmt.Errorf("recording the join of %q: %w", t.Server, err)
	}
	s.proofs.note(life{t.Server, t.Epoch}, admitted.Ledger)
	s.Log.Info("joined", "server", t.Server, "epoch", t.Epoch, "boot_id", q.BootID, "evidence", admitted.Evidence)
	return join.Response{Admission: admitted, Bundle: bundleData, BundleSig: bundleSig}, nil
}

// deadline is when a machine that joins now ends itself, by its ticket.
func deadline(t *ticket.Ticket, now time.Time) time.Time {
	if end := now.Add(time.Duration(t.MaxAge) * time.Second); end.Before(t.Deadline) {
		return end
	}
	return t.Deadline
}

// challenge passes on what a server's TPM has to answer. It uses nothing up; the signer bounds how many there are.
func (s *service) challenge(ctx context.Context, q join.ChallengeRequest) (join.Challenge, error) {
	if err := q.Check(); err != nil {
		return join.Challenge{}, err
	}
	t, err := ticket.Open(s.Trust, q.Ticket, q.Signature, s.now())
	if err != nil {
		return join.Challenge{}, join.RefuseTicket(err)
	}
	if _, ok := s.Fleet.RebuiltServer(t.Server); !ok {
		return join.Challenge{}, join.Refuse(join.ServerUnknown, "no server %q in fleet %q", t.Server, s.Fleet.Name)
	}
	present, err := s.Store.Server(ctx, t.Server)
	if err != nil {
		return join.Challenge{}, err
	}
	if present.Epoch != t.Epoch || present.State != inventory.Booting {
		return join.Challenge{}, join.Refuse(join.StateWrong, "%q is %s in life %d; the ticket is for booting in life %d", t.Server, present.State, present.Epoch, t.Epoch)
	}
	return s.Signer.Challenge(ctx, q)
}

// use marks the ticket used. A second use has revoked the life in the store; the signer hears of it and its stream is cut.
func (s *service) use(ctx context.Context, t *ticket.Ticket, q join.Request, now time.Time) error {
	err := s.Store.UseTicket(ctx, ticket.Hash(q.Ticket), t.Server, t.Epoch, now)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrTicketUsed):
		s.streams.cut(life{t.Server, t.Epoch})
		if serr := s.Signer.UsedTwice(ctx, q.Ticket, q.Signature); serr != nil {
			s.Log.Error("telling the signer of a ticket's second use", "server", t.Server, "error", serr)
		}
		return join.Refuse(join.TicketUsed, "the ticket for life %d of %q was used before; that life is revoked", t.Epoch, t.Server)
	case errors.Is(err, store.ErrTicketUnknown):
		return join.Refuse(join.TicketUnknown, "no such ticket was issued for life %d of %q", t.Epoch, t.Server)
	case errors.Is(err, store.ErrTicketExpired):
		return join.Refuse(ticket.Expired, "the ticket for life %d of %q has expired", t.Epoch, t.Server)
	case errors.Is(err, store.ErrTicketRevoked):
		return join.Refuse(join.TicketRevoked, "a later ticket of %q took this one's place", t.Server)
	default:
		return fmt.Errorf("using the ticket of %q: %w", t.Server, err)
	}
}

// renew wants the certificate in the request to be the one that the connection proved, of a life that is not revoked.
func (s *service) renew(ctx context.Context, r *http.Request, q join.RenewRequest) (join.Certificates, error) {
	cert, err := q.Check()
	if err != nil {
		return join.Certificates{}, err
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || !r.TLS.PeerCertificates[0].Equal(cert) {
		return join.Certificates{}, join.Refuse(join.CertificateBad, "the connection does not show the certificate to renew")
	}
	st, err := s.alive(ctx, cert, s.now())
	if err != nil {
		return join.Certificates{}, err
	}
	certs, err := s.Signer.Renew(ctx, q)
	if err == nil {
		s.proofs.note(st.life, certs.Ledger)
	}
	return certs, err
}

// renewHost passes on what a bastion of the fleet has signed; everything else does not get as far as the signer, which decides.
func (s *service) renewHost(ctx context.Context, q renewal.Request) (renewal.Answer, error) {
	if !slices.ContainsFunc(s.Fleet.Bastions, func(b inventory.Bastion) bool { return b.Name == q.Host }) {
		return renewal.Answer{}, join.Refuse(join.NameNotAllowed, "%.63q is no bastion of fleet %q", q.Host, s.Fleet.Name)
	}
	if _, err := q.Check(s.Fleet.Name, s.now()); err != nil {
		return renewal.Answer{}, join.Refuse(renewal.Reason(err), "%v", err)
	}
	return s.Signer.RenewHost(ctx, q)
}

// report keeps why a boot stopped. Its ticket may have expired: that may be the reason.
func (s *service) report(ctx context.Context, q join.Report) (struct{}, error) {
	if err := q.Check(); err != nil {
		return struct{}{}, err
	}
	t, err := ticket.Open(s.Trust, q.Ticket, q.Signature, time.Time{})
	if err != nil {
		return struct{}{}, join.RefuseTicket(err)
	}
	present, err := s.Store.Server(ctx, t.Server)
	if err != nil {
		return struct{}{}, err
	}
	if present.Epoch != t.Epoch {
		return struct{}{}, join.Refuse(join.TicketOlder, "%q is in life %d, the report is of %d", t.Server, present.Epoch, t.Epoch)
	}
	if !s.reports.allow(life{t.Server, t.Epoch}) {
		return struct{}{}, join.Refuse(join.RateLimited, "%d reports of one life", maxReportsOfALife)
	}
	s.Log.Warn("boot stopped", "server", t.Server, "epoch", t.Epoch, "stage", q.Stage, "reason", q.Reason, "detail", q.Detail)
	return struct{}{}, s.Store.BootFailed(ctx, t.Server, t.Epoch, q.Reason, q.Stage+": "+join.Printable(q.Detail, join.MaxDetail), s.now())
}

// life is one life of one server.
type life struct {
	name  string
	epoch uint64
}

// reportCount bounds the reports of each server's present life.
type reportCount struct {
	mu   sync.Mutex // guards seen
	seen map[life]int
}

func (c *reportCount) allow(l life) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.seen[l]; !ok {
		for old := range c.seen {
			if old.name == l.name {
				delete(c.seen, old)
			}
		}
	}
	c.seen[l]++
	return c.seen[l] <= maxReportsOfALife
}
