package bastion

import (
	"os"
	"strconv"
	"sync"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
)

// maxRefusedClosings bounds the closing records per hour of connections that were refused during their handshake. What is
// beyond goes where counts go, so that those at listed addresses who hold no key cannot fill the log either.
const maxRefusedClosings = 1024

// auditLog is where records go.
type auditLog interface {
	// Append returns once the record is durable.
	Append(event string, record any) error
	// AppendOpening is Append for what begins: it keeps a reserve for the records of what is under way.
	AppendOpening(event string, record any) error
	// AppendRefused takes what strangers cause, in a quota of its own.
	AppendRefused(event string, record any) error
	// Healthy says why nothing can begin, or why records are not signed.
	Healthy() error
}

var _ auditLog = (*audit.Log)(nil)

// AuditWitness cosigns the audit log's checkpoints (c2sp.org/tlog-witness).
type AuditWitness struct {
	URL string `toml:"url"` // its submission prefix
	Key string `toml:"key"` // its verifier key
}

func (c Config) checkAuditWitnesses(doc *tomlfile.Doc) error {
	for _, w := range c.AuditWitnesses {
		if err := (audit.Witness{URL: w.URL, Key: w.Key}).Check(); err != nil {
			return doc.Place(tomlfile.At("audit_witness", "the witness's operator publishes both", "%v", err))
		}
	}
	return nil
}

// openAudit opens the log of this bastion, or begins it under a name of fleet and machine.
func openAudit(c Config, fleet string, rejected func(audit.Rejection)) (*audit.Log, error) {
	machine, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	name := []string{"mayfly", fleet, "bastion", machine}
	if c.AuditLife != 0 {
		name = append(name, strconv.FormatUint(c.AuditLife, 10))
	}
	o := audit.Options{Dir: c.Audit, Key: c.AuditKey, Name: audit.LogName(name...), OnWitnessRejected: rejected, Replica: c.replica()}
	for _, w := range c.AuditWitnesses {
		o.Witnesses = append(o.Witnesses, audit.Witness{URL: w.URL, Key: w.Key})
	}
	return audit.Open(o)
}

// witnessRecord is a witness's word that the log is not the one that it knows.
type witnessRecord struct {
	Witness string `json:"witness"`
	Size    uint64 `json:"size"` // of the checkpoint that it rejects
	Seen    uint64 `json:"seen"` // what it says it has cosigned
	Detail  string `json:"detail"`
}

// witnessRejected tells everybody: whoever has kept the log from its witness may keep it from its readers as well.
func (s *Server) witnessRejected(r audit.Rejection) {
	record := witnessRecord{Witness: escape(r.Witness, maxText), Size: r.Size, Seen: r.Seen, Detail: escape(r.Detail, maxDetail)}
	s.log.Error("a witness rejects the audit log", "witness", record.Witness, "size", r.Size, "seen", r.Seen, "detail", record.Detail)
	s.append(eventWitness, record)
	s.notify(noticeWitness, record)
}

// watchAudit says when the audit log falls ill, and when it has recovered. It is called by watch alone.
func (s *Server) watchAudit() {
	err := s.audit.Healthy()
	switch {
	case err != nil && !s.auditIll:
		s.log.Error("the audit log is ill: new sessions are denied if it cannot be written", "error", err, "hint", hint.Of(err))
		s.notify(noticeAuditIll, err.Error())
	case err == nil && s.auditIll:
		s.log.Info("the audit log has recovered")
		s.notify(noticeAuditWell, "it takes records, and signs them")
	}
	s.auditIll = err != nil
}

// closings counts the closing records of this hour that strangers may cause in the log itself.
type closings struct {
	mu    sync.Mutex
	began time.Time
	taken int
}

// take takes one of the hour's places.
func (c *closings) take(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := now.Sub(c.began); d >= time.Hour || d < 0 {
		c.began, c.taken = now, 0
	}
	if c.taken >= maxRefusedClosings {
		return false
	}
	c.taken++
	return true
}

// writeClosing writes the one closing record of a connection. That of a refused one takes nothing that others need: beyond its
// share, or when free space is short, it goes where counts go.
func (s *Server) writeClosing(r closingRecord, now time.Time) error {
	if r.Outcome != "refused" {
		return s.audit.Append(eventConnection, r)
	}
	if s.closings.take(now) && s.audit.AppendOpening(eventConnection, r) == nil {
		return nil
	}
	return s.audit.AppendRefused(eventConnection, r)
}
