package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
)

// Specification constants: the certificates' files in the state directory.
const (
	Folder     = "etcd"
	fileCA     = "ca.pem"
	fileClient = "client.pem"
	fileKey    = "client.key"
)

const maxCertificates = 256 << 10

// credentials reads the certificates for mutual TLS. Without them only this machine's own addresses are spoken to, in the clear.
func credentials(dir string, address inventory.StoreAddress) (*tls.Config, error) {
	folder := filepath.Join(dir, Folder)
	ca, err := durable.ReadRegular(filepath.Join(folder, fileCA), maxCertificates)
	if errors.Is(err, fs.ErrNotExist) && address.Loopback() {
		return nil, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.New(fmt.Errorf("it is on another machine, and %s is not there: whoever is on the way could read and write it", filepath.Join(folder, fileCA)),
			"lay etcd's CA, a client certificate and its key into %s as %s, %s and %s (0600)", folder, fileCA, fileClient, fileKey)
	}
	if err != nil {
		return nil, fmt.Errorf("reading etcd's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", filepath.Join(folder, fileCA))
	}
	cert, err := durable.ReadRegular(filepath.Join(folder, fileClient), maxCertificates)
	if err != nil {
		return nil, fmt.Errorf("reading the client certificate for etcd: %w", err)
	}
	key, err := durable.ReadSecret(filepath.Join(folder, fileKey))
	if err != nil {
		return nil, err
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("the client certificate for etcd: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}
