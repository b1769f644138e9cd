package signer

import (
	"fmt"
	"net"
	"time"

	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
)

// Longest lives of certificates that are not a server's.
const (
	ServiceLife = 24 * time.Hour
	BastionLife = 7 * 24 * time.Hour
)

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

type hostRequest struct {
	Bastion string `json:"bastion"`
	HostKey string `json:"host_key"`
}

type hostAnswer struct {
	Certificate string `json:"certificate"`
}

// host certifies the SSH host key of a bastion that the signed inventory names.
func (s *server) host(r hostRequest, now time.Time) (hostAnswer, error) {
	key, err := join.HostKey(r.HostKey)
	if err != nil {
		return hostAnswer{}, join.Refuse(join.RequestInvalid, "host_key: %v", err)
	}
	b, err := s.rules.bundle(now)
	if err != nil {
		return hostAnswer{}, err
	}
	for _, bastion := range b.Inventory.Bastions {
		if bastion.Name != r.Bastion {
			continue
		}
		if err := s.rate.allow("host certificates", r.Bastion, hostsPerHour, now); err != nil {
			return hostAnswer{}, err
		}
		names := []string{bastion.Name, b.Inventory.FQDN(bastion.Name), bastion.Address.String()}
		cert, err := pki.IssueHost(s.keys.host, key, names, now, BastionLife)
		if err != nil {
			return hostAnswer{}, fmt.Errorf("issuing the host certificate of %q: %w", r.Bastion, err)
		}
		line := trust.FormatKey(cert)
		end := time.Unix(int64(cert.ValidBefore), 0).UTC()
		if err := s.log.Append("host", certificateRecord{Name: names[1], HostKey: r.HostKey, Host: sum([]byte(line)), NotAfter: end, Test: b.Inventory.Test}); err != nil {
			return hostAnswer{}, err
		}
		return hostAnswer{Certificate: line}, nil
	}
	return hostAnswer{}, join.Refuse(join.NameNotAllowed, "%q is no bastion of fleet %q", r.Bastion, b.Inventory.Name)
}
