package boot

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/rebuild/join"
)

// Bounds of keeping audit logs.
const (
	maxAuditRequests = 16              // batches in hand
	auditWait        = 2 * time.Second // for a place; the bastion sends it again
)

// LifeCertificate is the file beside a life's audit log with the TLS certificate of who brought it.
const LifeCertificate = "life.pem"

// AuditName is the origin of the audit log of one life of a bastion.
func AuditName(fleet, server string, epoch uint64) string {
	return audit.LogName("mayfly", fleet, "bastion", server, strconv.FormatUint(epoch, 10))
}

// auditLogs are the copies of rebuilt bastions' audit logs: DIR/SERVER/EPOCH, one for each life. Nothing of them is ever removed here.
type auditLogs struct {
	dir   string
	fleet string
	busy  chan struct{}

	mu   sync.Mutex // guards open and closed
	open map[string]*openCopy
	done bool
}

// openCopy is the copy of the latest life of one bastion that wrote.
type openCopy struct {
	epoch uint64
	mu    sync.Mutex // held over each batch
	copy  *audit.Copy
}

func newAuditLogs(dir, fleet string) *auditLogs {
	return &auditLogs{dir: dir, fleet: fleet, busy: make(chan struct{}, maxAuditRequests), open: make(map[string]*openCopy)}
}

// audit keeps what a rebuilt bastion writes into its audit log. The life's certificate is the credential, as it is for the stream.
func (s *service) audit(w http.ResponseWriter, r *http.Request) {
	answerWith(s, w, r, s.audits.busy, auditWait, func(ctx context.Context) (any, error) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return nil, join.Refuse(join.CertificateBad, "the connection shows no certificate")
		}
		st, err := s.alive(ctx, r.TLS.PeerCertificates[0], s.now())
		if err != nil {
			return nil, err
		}
		if server, _ := s.Fleet.Server(st.name); server.Role != inventory.RoleBastion {
			return nil, join.Refuse(join.NameNotAllowed, "%q is no bastion of fleet %q", st.name, s.Fleet.Name)
		}
		body, err := join.ReadBody(r.Body, join.MaxAuditBatch)
		if err != nil {
			return nil, err
		}
		b, err := join.Decode[audit.Batch](body, join.MaxAuditBatch)
		if err != nil {
			return nil, err
		}
		kept, err := s.audits.take(st.life, b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.TLS.PeerCertificates[0].Raw}))
		if refused, ok := errors.AsType[*audit.Refused](err); ok {
			return nil, join.Refuse(join.AuditRefused, "audit log of life %d of %q: %v", st.epoch, st.name, refused)
		}
		return kept, err
	})
}

// take makes a batch durable. A copy that failed is opened anew the next time.
func (a *auditLogs) take(l life, b audit.Batch, certificate []byte) (audit.Kept, error) {
	a.mu.Lock()
	if a.done {
		a.mu.Unlock()
		return audit.Kept{}, os.ErrClosed
	}
	c := a.open[l.name]
	if c == nil || c.epoch < l.epoch {
		if c != nil {
			c.close()
		}
		c = &openCopy{epoch: l.epoch}
		a.open[l.name] = c
	}
	a.mu.Unlock()
	if c.epoch != l.epoch {
		return audit.Kept{}, join.Refuse(join.LifeUnknown, "life %d of %q has begun", c.epoch, l.name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copy == nil {
		if err := a.begin(c, l, b.Log, certificate); err != nil {
			return audit.Kept{}, err
		}
	}
	kept, err := c.copy.Take(b)
	if err != nil && c.copy.Broken() != nil {
		err = errors.Join(err, c.copy.Close())
		c.copy = nil
	}
	return kept, err
}

func (a *auditLogs) begin(c *openCopy, l life, key string, certificate []byte) error {
	dir := filepath.Join(a.dir, l.name, strconv.FormatUint(l.epoch, 10))
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("keeping the audit log of %q: %w", l.name, err)
	}
	copy, err := audit.OpenCopy(dir, key, AuditName(a.fleet, l.name, l.epoch))
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, LifeCertificate), certificate, 0o600); err != nil {
		return errors.Join(err, copy.Close())
	}
	c.copy = copy
	return nil
}

func (c *openCopy) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copy == nil {
		return nil
	}
	err := c.copy.Close()
	c.copy = nil
	return err
}

func (a *auditLogs) closeAll() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = true
	var errs []error
	for _, c := range a.open {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}
