package signer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/durable"
	"mayfly/internal/pki"
	"mayfly/internal/renewal"
	"mayfly/inventory"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
)

// MaxHostLife is the longest life of any SSH host certificate, from its first second to its last. There is no way around it: every
// one is made by hostCertificate.
const MaxHostLife = time.Hour

// maxBastionFile bounds the file that says which key is a bastion's.
const maxBastionFile = 4 << 10

type hostRequest struct {
	Bastion string `json:"bastion"`
	HostKey string `json:"host_key"`

	Request *request.Signed `json:"request,omitempty"` // of a key that is not this bastion's yet
}

type hostAnswer struct {
	Certificate string `json:"certificate"`
	Without     bool   `json:"without_request,omitempty"` // a new key, and nobody had to be asked
}

// bastionKey says which host key is a bastion's. It is one file in signer/bastions, written when somebody with the signer's socket has
// the key certified, and what renewals from elsewhere are held against.
type bastionKey struct {
	Bastion string `json:"bastion"`
	HostKey string `json:"host_key"`
}

// bastions remembers the bastions' keys, durably, and the time of each one's last renewal.
type bastions struct {
	dir string

	mu   sync.Mutex // guards the files and last
	last map[string]time.Time
}

func openBastions(dir string) (*bastions, error) {
	d := filepath.Join(dir, keyDir, bastionsDir)
	if err := os.MkdirAll(d, 0o700); err != nil {
		return nil, fmt.Errorf("opening the signer's state: %w", err)
	}
	return &bastions{dir: d, last: make(map[string]time.Time)}, nil
}

func (b *bastions) path(name string) string { return filepath.Join(b.dir, name+".json") }

// enrol makes key the bastion's.
func (b *bastions) enrol(name, key string) error {
	data, err := canonical.Marshal(bastionKey{Bastion: name, HostKey: key})
	if err != nil {
		return fmt.Errorf("saving the key of %q: %w", name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return durable.WriteFile(b.path(name), data, 0o600)
}

// has reports whether key is the bastion's already.
func (b *bastions) has(name, key string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, err := b.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && known.Bastion == name && known.HostKey == key, err
}

// load reads whose key is the bastion's. The caller holds mu.
func (b *bastions) load(name string) (bastionKey, error) {
	var known bastionKey
	data, err := durable.ReadRegular(b.path(name), maxBastionFile)
	if err == nil {
		err = canonical.Parse(data, maxBastionFile, &known)
	}
	if err != nil {
		return bastionKey{}, fmt.Errorf("loading the key of %q: %w", name, err)
	}
	return known, nil
}

// renews says whether key may renew the certificate of a bastion with a request of this time. A request counts once: each has
// to be later than the one before.
func (b *bastions) renews(name, key string, at time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, err := b.load(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return join.Refuse(join.HostUnknown, "no host key of %q was ever certified here", name)
	case err != nil:
		return err
	case known.Bastion != name || known.HostKey != key:
		return join.Refuse(join.HostUnknown, "the host key certified for %q is another one", name)
	case !at.After(b.last[name]):
		return join.Refuse(join.RequestUsed, "a request of %q as late as %s was answered before", name, at.Format(time.RFC3339Nano))
	}
	b.last[name] = at
	return nil
}

// host certifies the SSH host key of a bastion that the signed inventory names, and makes it that bastion's key. For the key that is the
// bastion's already, whoever can open the signer's socket may ask; another one takes the leave of people.
func (s *server) host(r hostRequest, now time.Time) (hostAnswer, error) {
	key, err := join.HostKey(r.HostKey)
	if err != nil {
		return hostAnswer{}, join.Refuse(join.RequestInvalid, "host_key: %v", err)
	}
	b, bastion, err := s.bastion(r.Bastion, now)
	if err != nil {
		return hostAnswer{}, err
	}
	known, err := s.bastions.has(r.Bastion, r.HostKey)
	if err != nil {
		return hostAnswer{}, err
	}
	asked := request.Certify(r.Bastion, trust.FormatKey(key))
	var leave request.Decision
	if !known {
		if leave, err = s.orders.decide(b, asked, r.Request, now); err != nil {
			return hostAnswer{}, err
		}
	}
	if err := s.rate.allow("host certificates", r.Bastion, hostsPerHour, now); err != nil {
		return hostAnswer{}, err
	}
	if !known {
		if err := s.orders.begin(b, asked, leave, r.Request, now); err != nil {
			return hostAnswer{}, err
		}
		if err := s.bastions.enrol(r.Bastion, r.HostKey); err != nil {
			return hostAnswer{}, err
		}
	}
	line, err := s.bastionCertificate("host", b, bastion, key, now)
	return hostAnswer{Certificate: line, Without: !known && leave.Request == nil}, err
}

// renewHost goes on with a bastion's certificate: its evidence is a request signed by the key that was certified before.
func (s *server) renewHost(r renewal.Request, now time.Time) (renewal.Answer, error) {
	b, bastion, err := s.bastion(r.Host, now)
	if err != nil {
		return renewal.Answer{}, err
	}
	key, err := r.Check(b.Inventory.Name, now)
	if err != nil {
		return renewal.Answer{}, join.Refuse(renewal.Reason(err), "%v", err)
	}
	if err := s.bastions.renews(r.Host, trust.FormatKey(key), r.Time); err != nil {
		return renewal.Answer{}, err
	}
	// Asked last: a stranger's request uses up nothing that the bastion's needs.
	if err := s.rate.allow("bastion renewals", r.Host, hostsPerHour, now); err != nil {
		return renewal.Answer{}, err
	}
	line, err := s.bastionCertificate("renew_host", b, bastion, key, now)
	return renewal.Answer{Certificate: line}, err
}

// bastion finds a bastion in the signed inventory.
func (s *server) bastion(name string, now time.Time) (*bundle.Bundle, inventory.Bastion, error) {
	b, err := s.rules.bundle(now)
	if err != nil {
		return nil, inventory.Bastion{}, err
	}
	for _, bastion := range b.Inventory.Bastions {
		if bastion.Name == name {
			return b, bastion, nil
		}
	}
	return nil, inventory.Bastion{}, join.Refuse(join.NameNotAllowed, "%.63q is no bastion of fleet %q", name, b.Inventory.Name)
}

// bastionCertificate makes a bastion's certificate, records it, and only then returns it.
func (s *server) bastionCertificate(event string, b *bundle.Bundle, bastion inventory.Bastion, key ssh.PublicKey, now time.Time) (string, error) {
	names := []string{bastion.Name, b.Inventory.FQDN(bastion.Name), bastion.Address.String()}
	cert, err := s.hostCertificate(key, names, now, MaxHostLife)
	if err != nil {
		return "", err
	}
	line := trust.FormatKey(cert)
	record := certificateRecord{Name: names[1], HostKey: trust.FormatKey(key), Host: sum([]byte(line)),
		NotAfter: time.Unix(int64(cert.ValidBefore), 0).UTC(), Test: b.Inventory.Test}
	return line, s.log.Append(event, record)
}

// hostCertificate signs a host key for these names, for at most MaxHostLife.
func (s *server) hostCertificate(key ssh.PublicKey, names []string, now time.Time, span time.Duration) (*ssh.Certificate, error) {
	ca, err := s.keys.host.current()
	if err != nil {
		return nil, err
	}
	cert, err := pki.IssueHost(ca, key, names, now, min(span, MaxHostLife-pki.Backdate))
	if err != nil {
		return nil, fmt.Errorf("issuing the host certificate of %q: %w", names[0], err)
	}
	return cert, nil
}
