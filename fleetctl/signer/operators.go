package signer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/durable"
	"mayfly/internal/pki"
)

// Files of the operators' CA below DIR/signer, and its certificate for everybody.
const (
	operatorsCertFile = "operators-ca.pem"
	operatorsKeyFile  = "operators-ca.key"
)

// OperatorsCA is the certificate of the CA whose certificates open the page, and nothing else.
func OperatorsCA(dir string) string { return filepath.Join(dir, operatorsCertFile) }

// newOperatorsCA makes the operators' CA and returns its certificate.
func newOperatorsCA(dir, name string, now time.Time) ([]byte, error) {
	cert, key, err := pki.NewOperators(name, now)
	if err != nil {
		return nil, fmt.Errorf("making the operators' CA: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, keyDir, operatorsKeyFile), key, 0o600); err != nil {
		return nil, err
	}
	return cert, durable.WriteFile(filepath.Join(dir, keyDir, operatorsCertFile), cert, 0o644)
}

// loadOperators reads the operators' CA; nil where an older fleetctl made the directory and nobody has added one.
func loadOperators(dir string) (*pki.Operators, error) {
	key, err := durable.ReadSecret(filepath.Join(dir, keyDir, operatorsKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading the operators' CA: %w", err)
	}
	cert, err := durable.ReadRegular(filepath.Join(dir, keyDir, operatorsCertFile), maxBody)
	if err != nil {
		return nil, fmt.Errorf("loading the operators' CA: %w", err)
	}
	return pki.LoadOperators(cert, key)
}

// AddOperators makes the operators' CA in a directory that has none yet, and returns its certificate. A signer that runs has to be started again.
func AddOperators(dir, name string, now time.Time) ([]byte, error) {
	path := filepath.Join(dir, keyDir, operatorsCertFile)
	cert, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newOperatorsCA(dir, name, now)
	}
	return cert, err
}
