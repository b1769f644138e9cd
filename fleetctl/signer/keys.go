package signer

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/durable"
	"mayfly/internal/pki"
)

// keys are the private keys, in this process's memory only.
type keys struct {
	caPEM  []byte
	ca     *pki.CA
	people *pki.Operators // nil in a directory without an operators' CA
	host   hostCA
	ticket ssh.Signer
	list   ssh.Signer
	ledger ssh.Signer
}

func loadKeys(dir string) (*keys, error) {
	d := filepath.Join(dir, keyDir)
	var k keys
	var err error
	if k.caPEM, err = os.ReadFile(caFile(dir)); err != nil {
		return nil, fmt.Errorf("loading the TLS CA: %w", err)
	}
	caKey, err := durable.ReadSecret(filepath.Join(d, tlsKeyFile))
	if err != nil {
		return nil, fmt.Errorf("loading the TLS CA: %w", err)
	}
	if k.ca, err = pki.LoadCA(k.caPEM, caKey); err != nil {
		return nil, fmt.Errorf("loading the TLS CA: %w", err)
	}
	if k.people, err = loadOperators(dir); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		file   string
		signer *ssh.Signer
	}{{ticketKeyFile, &k.ticket}, {listKeyFile, &k.list}, {ledgerKeyFile, &k.ledger}} {
		data, err := durable.ReadSecret(filepath.Join(d, s.file))
		if err != nil {
			return nil, fmt.Errorf("loading %s: %w", s.file, err)
		}
		if *s.signer, err = ssh.ParsePrivateKey(data); err != nil {
			return nil, fmt.Errorf("loading %s: %w", s.file, err)
		}
	}
	k.host.dir = dir
	if _, err := k.host.current(); err != nil {
		return nil, err
	}
	return &k, nil
}
