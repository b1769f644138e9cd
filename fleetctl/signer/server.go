package signer

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"time"

	"mayfly/inventory"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// MaxServerLife is the longest life of a server's certificates; they are renewed at half of it.
const MaxServerLife = time.Hour

// certificateRecord is what the log keeps of each certificate.
type certificateRecord struct {
	Name     string    `json:"name"`
	Epoch    uint64    `json:"epoch,omitempty"`
	Ticket   string    `json:"ticket,omitempty"` // hash of the ticket that was the evidence
	TLSKey   string    `json:"tls_key,omitempty"`
	HostKey  string    `json:"host_key,omitempty"`
	TLS      string    `json:"tls,omitempty"`  // SHA-256 of the certificate, hex
	Host     string    `json:"host,omitempty"` // SHA-256 of the SSH certificate, hex
	NotAfter time.Time `json:"not_after"`
	Boot     *proof    `json:"boot,omitempty"` // what is known of the life's boot, where it begins
	Test     bool      `json:"test"`           // of a test fleet: software keys and virtual hardware count
}

// admit begins a life: its evidence is a ticket signed by this process, used for the first time.
func (s *server) admit(r join.Request, now time.Time) (join.Admission, error) {
	if err := r.Check(); err != nil {
		return join.Admission{}, err
	}
	t, b, err := s.openTicket(r.Ticket, r.Signature, now)
	if err != nil {
		return join.Admission{}, err
	}
	key, err := join.CSRKey(r.CSR)
	if err != nil {
		return join.Admission{}, join.Refuse(join.RequestInvalid, "csr: %v", err)
	}
	p, err := s.prove(r, t, b, now)
	if err != nil {
		return join.Admission{}, err
	}
	hash := ticket.Hash(r.Ticket)
	v, err := s.lives.begin(t, hash, join.KeyHash(key), r, s.releaseOf(t), p, s.ends(t, now), now, func() error {
		if err := s.mayBegin(t, now); err != nil {
			return err
		}
		return s.rate.allow("admissions", t.Server, admitsPerHour, now)
	})
	if err != nil {
		return join.Admission{}, s.revoked(t, err, now)
	}
	if err := s.begun(t, v, p.Evidence, now); err != nil { // on disk before a certificate leaves
		return join.Admission{}, err
	}
	c, err := s.issue("admit", v, hex.EncodeToString(hash[:]), &p, r.CSR, r.HostKey, b.Inventory, now)
	if err != nil {
		return join.Admission{}, err
	}
	return join.Admission{Certificates: c, Evidence: p.Evidence}, nil
}

// openTicket is what has to hold of every ticket: this process signed it, and it says what the signed inventory and policy do.
func (s *server) openTicket(data, sig []byte, now time.Time) (*ticket.Ticket, *bundle.Bundle, error) {
	t, err := ticket.Open(s.rules.trusts(), data, sig, now)
	if err != nil {
		return nil, nil, join.RefuseTicket(err)
	}
	b, err := s.rules.bundle(now)
	if err != nil {
		return nil, nil, err
	}
	return t, b, checkTicket(*t, b.Inventory, b.Policy, string(s.keys.caPEM), now)
}

// renew goes on with a life: its evidence is a certificate of this CA that is still valid, and a proof of its key.
func (s *server) renew(r join.RenewRequest, now time.Time) (join.Certificates, error) {
	cert, err := r.Check()
	if err != nil {
		return join.Certificates{}, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.keys.caPEM)
	_, err = cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return join.Certificates{}, join.Refuse(join.CertificateBad, "%v", err)
	}
	b, err := s.rules.bundle(now)
	if err != nil {
		return join.Certificates{}, err
	}
	name, ok := strings.CutSuffix(cert.Subject.CommonName, "."+b.Inventory.Domain)
	if _, known := b.Inventory.RebuiltServer(name); !ok || !known {
		return join.Certificates{}, join.Refuse(join.ServerUnknown, "%q is no server of fleet %q", cert.Subject.CommonName, b.Inventory.Name)
	}
	key, _ := cert.PublicKey.(ed25519.PublicKey)
	v, err := s.lives.current(name, join.KeyHash(key), r.HostKey, now)
	if err != nil {
		return join.Certificates{}, err
	}
	if s.book != nil && s.book.isOver(name, v.Epoch) {
		return join.Certificates{}, join.Refuse(join.LifeOver, "the ledger says that life %d of %q is over", v.Epoch, name)
	}
	if err := s.rate.allow("renewals", name, renewsPerHour, now); err != nil {
		return join.Certificates{}, err
	}
	return s.issue("renew", v, "", nil, r.CSR, r.HostKey, b.Inventory, now)
}

// issue makes both certificates of a server's life, records them, and only then returns them.
func (s *server) issue(event string, v life, ticketHash string, p *proof, csr []byte, hostKey string, f inventory.Fleet, now time.Time) (join.Certificates, error) {
	srv, ok := f.RebuiltServer(v.Server)
	if !ok {
		return join.Certificates{}, join.Refuse(join.ServerUnknown, "no server %q in fleet %q", v.Server, f.Name)
	}
	span := min(MaxServerLife, v.Ends.Sub(now))
	if span <= 0 {
		return join.Certificates{}, join.Refuse(join.LifeOver, "life %d of %q ended at %s", v.Epoch, v.Server, v.Ends.Format(time.RFC3339))
	}
	name, addr := f.FQDN(v.Server), srv.Address.Addr()
	chain, notAfter, err := s.keys.ca.Issue(csr, name, []net.IP{addr.AsSlice()}, true, true, now, span)
	if err != nil {
		return join.Certificates{}, fmt.Errorf("issuing the TLS certificate of %q: %w", name, err)
	}
	pub, err := join.HostKey(hostKey)
	if err != nil {
		return join.Certificates{}, join.Refuse(join.RequestInvalid, "host_key: %v", err)
	}
	cert, err := s.hostCertificate(pub, []string{v.Server, name, addr.String()}, now, span)
	if err != nil {
		return join.Certificates{}, err
	}
	host := trust.FormatKey(cert)
	if hostEnd := time.Unix(int64(cert.ValidBefore), 0).UTC(); hostEnd.Before(notAfter) {
		notAfter = hostEnd
	}
	record := certificateRecord{
		Name: name, Epoch: v.Epoch, Ticket: ticketHash, TLSKey: v.TLSKey, HostKey: hostKey,
		TLS: chainHash(chain), Host: sum([]byte(host)), NotAfter: notAfter, Boot: p, Test: f.Test,
	}
	if err := s.log.Append(event, record); err != nil {
		return join.Certificates{}, err
	}
	return join.Certificates{TLS: chain, Host: host, NotAfter: notAfter, Ledger: s.entry(v)}, nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// chainHash is the fingerprint of a chain's first certificate.
func chainHash(chainPEM []byte) string {
	block, _ := pem.Decode(chainPEM)
	if block == nil {
		return ""
	}
	return sum(block.Bytes)
}
