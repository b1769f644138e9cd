package signer

import (
	"fmt"
	"net"
	"time"

	"mayfly/inventory"
	"mayfly/rebuild/join"
)

// ServiceLife is the longest life of a certificate of the controller's own processes.
const ServiceLife = 24 * time.Hour

// services are the controller's own TLS names, each below the fleet's domain.
var services = map[string]bool{inventory.NameController: true, inventory.NameCheckin: true}

type serviceRequest struct {
	Name string `json:"name"`
	CSR  []byte `json:"csr"`
}

type serviceAnswer struct {
	Chain []byte `json:"chain"`
}

// service certifies one of the controller's own processes, for serving only.
func (s *server) service(r serviceRequest, now time.Time) (serviceAnswer, error) {
	if !services[r.Name] {
		return serviceAnswer{}, join.Refuse(join.NameNotAllowed, "%q is no service", r.Name)
	}
	key, err := join.CSRKey(r.CSR)
	if err != nil {
		return serviceAnswer{}, join.Refuse(join.RequestInvalid, "csr: %v", err)
	}
	b, err := s.rules.bundle(now)
	if err != nil {
		return serviceAnswer{}, err
	}
	if err := s.rate.allow("service certificates", r.Name, serviceHour, now); err != nil {
		return serviceAnswer{}, err
	}
	name := b.Inventory.FQDN(r.Name)
	ip := b.Inventory.Controller.Address
	chain, notAfter, err := s.keys.ca.Issue(r.CSR, name, []net.IP{ip.AsSlice()}, true, false, now, ServiceLife)
	if err != nil {
		return serviceAnswer{}, fmt.Errorf("issuing the certificate of %q: %w", name, err)
	}
	err = s.log.Append("service", certificateRecord{Name: name, TLSKey: join.KeyHash(key), TLS: chainHash(chain), NotAfter: notAfter, Test: b.Inventory.Test})
	if err != nil {
		return serviceAnswer{}, err
	}
	return serviceAnswer{Chain: chain}, nil
}
