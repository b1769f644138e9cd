package signer

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/pki"
	"mayfly/policies/trust"
)

// Files below DIR/signer.
const (
	keyDir        = "signer"
	tlsCertFile   = "tls-ca.pem"
	tlsKeyFile    = "tls-ca.key"
	hostCAFile    = "ssh-host-ca"
	hostCAsFile   = "ssh-host-cas.json"
	ticketKeyFile = "ticket-key"
	listKeyFile   = "list-key"
	ledgerKeyFile = "ledger-key"
	logDir        = "certificates" // the log of certificates, with its own key
	livesDir      = "lives"
	bastionsDir   = "bastions"
	requestsDir   = "requests" // which requests were used
	caLogDir      = "cas"      // the log of what `fleetctl ca` did, with its own key
	versionFile   = "bundle-version"
)

// caFile is where the signer has the certificate of the TLS CA. Others have a copy of their own: it is public.
func caFile(dir string) string { return filepath.Join(dir, keyDir, tlsCertFile) }

// Public is what the rest of the fleet needs of the signer's keys.
type Public struct {
	TLSCA     []byte // PEM
	Operators []byte // PEM
	HostCA    string // authorized_keys form, as are the next three
	TicketKey string
	ListKey   string
	LedgerKey string
}

// Init makes the signer's keys in DIR/signer. It refuses to touch a directory that exists.
func Init(dir, domain string, now time.Time) (Public, error) {
	d := filepath.Join(dir, keyDir)
	if err := os.Mkdir(d, 0o700); errors.Is(err, fs.ErrExist) {
		return Public{}, hint.New(fmt.Errorf("making the signer's keys: %s exists", d), "the keys of a fleet are made once; use another --dir for another fleet")
	} else if err != nil {
		return Public{}, fmt.Errorf("making the signer's keys: %w", err)
	}
	cert, key, err := pki.NewCA(domain, now, domain)
	if err != nil {
		return Public{}, fmt.Errorf("making the TLS CA: %w", err)
	}
	p := Public{TLSCA: cert}
	if err := durable.WriteFile(filepath.Join(d, tlsKeyFile), key, 0o600); err != nil {
		return Public{}, err
	}
	if err := durable.WriteFile(caFile(dir), cert, 0o644); err != nil {
		return Public{}, err
	}
	for _, k := range []struct {
		file   string
		public *string
	}{{hostCAFile, &p.HostCA}, {ticketKeyFile, &p.TicketKey}, {listKeyFile, &p.ListKey}, {ledgerKeyFile, &p.LedgerKey}} {
		if *k.public, err = newSSHKey(filepath.Join(d, k.file), k.file+"@"+domain); err != nil {
			return Public{}, err
		}
	}
	if p.Operators, err = newOperatorsCA(dir, domain, now); err != nil {
		return Public{}, err
	}
	if err := os.Mkdir(filepath.Join(d, livesDir), 0o700); err != nil {
		return Public{}, fmt.Errorf("making the signer's state: %w", err)
	}
	return p, nil
}

// newSSHKey writes an Ed25519 key in OpenSSH's format, with its public half beside it.
func newSSHKey(path, comment string) (public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("making %s: %w", path, err)
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return "", fmt.Errorf("encoding %s: %w", path, err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encoding %s: %w", path, err)
	}
	public = trust.FormatKey(sshPub)
	if err := durable.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", err
	}
	return public, durable.WriteFile(path+".pub", []byte(public+"\n"), 0o644)
}
