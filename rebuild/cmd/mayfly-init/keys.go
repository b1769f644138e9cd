package main

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
)

// keys are made in this boot and end with it. Files that programs need lie in tmpfs, 0600.
type keys struct {
	tlsPEM  []byte // PKCS#8, Ed25519
	tls     ed25519.PrivateKey
	csr     []byte
	hostPEM []byte // OpenSSH's format
	host    string // authorized_keys form
	tunnel  []byte // base64 of the WireGuard key, as a line
	public  string // base64 of its public half
	bootID  string
}

func makeKeys(name string) (*keys, error) {
	var k keys
	keyPEM, csrFor, err := pki.NewKey()
	if err != nil {
		return nil, fmt.Errorf("making the TLS key: %w", err)
	}
	k.tlsPEM = keyPEM
	if k.csr, err = csrFor(name); err != nil {
		return nil, fmt.Errorf("making the certificate request: %w", err)
	}
	if k.tls, err = parseKey(keyPEM); err != nil {
		return nil, fmt.Errorf("making the TLS key: %w", err)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the host key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, name)
	if err != nil {
		return nil, fmt.Errorf("encoding the host key: %w", err)
	}
	k.hostPEM = pem.EncodeToMemory(block)
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encoding the host key: %w", err)
	}
	k.host = strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(sshPub)), "\n")
	wg, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the tunnel's key: %w", err)
	}
	k.tunnel = []byte(base64.StdEncoding.EncodeToString(wg.Bytes()) + "\n")
	k.public = base64.StdEncoding.EncodeToString(wg.PublicKey().Bytes())
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("reading the boot id: %w", err)
	}
	k.bootID = strings.TrimSpace(string(id))
	return &k, nil
}

func parseKey(keyPEM []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key of type %T, not Ed25519", key)
	}
	return ed, nil
}
