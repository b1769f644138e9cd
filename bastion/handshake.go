package bastion

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
)

// Implementation constants of the handshake.
const (
	serverVersion  = "SSH-2.0-mayfly"
	maxAuthTries   = 4
	rekeyThreshold = 1 << 30 // bytes
)

// softwareKeyTypes can be held by any software. They are offered so that such a key is refused by name, after proof of
// possession, and not by a riddle; package policies lets none of them in.
var softwareKeyTypes = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}

// baseConfig pins every list of algorithms. The library takes an empty list for its own defaults, SHA-1 among them, so a
// list that is empty, or names what the library does not have, is refused here.
func baseConfig(p policies.Policy, keys *hostKeys) (*ssh.ServerConfig, error) {
	level := p.SSH.Level
	a, err := p.Algorithms()
	if err != nil {
		return nil, fmt.Errorf("choosing algorithms: %w", err)
	}
	have := ssh.SupportedAlgorithms()
	for _, list := range []struct {
		name       string
		want, have []string
	}{
		{"key exchanges", a.KeyExchanges, append(have.KeyExchanges, "curve25519-sha256@libssh.org")},
		{"ciphers", a.Ciphers, have.Ciphers},
		{"MACs", a.MACs, have.MACs},
		{"host keys", a.HostKeys, have.HostKeys},
		{"public keys", a.PublicKeys, have.PublicKeyAuths},
	} {
		if len(list.want) == 0 {
			return nil, fmt.Errorf("choosing algorithms: level %q has no %s", level, list.name)
		}
		for _, name := range list.want {
			if !slices.Contains(list.have, name) {
				return nil, fmt.Errorf("choosing algorithms: level %q: %s: %q is not supported", level, list.name, name)
			}
		}
	}
	config := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges:   slices.Clone(a.KeyExchanges),
			Ciphers:        slices.Clone(a.Ciphers),
			MACs:           slices.Clone(a.MACs),
			RekeyThreshold: rekeyThreshold,
		},
		PublicKeyAuthAlgorithms: slices.Clone(a.PublicKeys),
		MaxAuthTries:            maxAuthTries,
		ServerVersion:           serverVersion,
	}
	config.PublicKeyAuthAlgorithms = append(config.PublicKeyAuthAlgorithms, softwareOnly(a)...)
	offered := 0
	for _, signer := range []ssh.Signer{keys.certified, keys.plain} {
		if slices.Contains(a.HostKeys, signer.PublicKey().Type()) {
			config.AddHostKey(signer)
			offered++
		}
	}
	if offered == 0 {
		return nil, fmt.Errorf("choosing algorithms: level %q: no host key of types %s", level, strings.Join(a.HostKeys, ", "))
	}
	return config, nil
}

// handshake runs the key exchange and the authentication under one deadline. On success the visit has a login.
func (v *visit) handshake() (*ssh.ServerConn, <-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	config := *v.ruling.ssh
	config.PreAuthConnCallback = func(c ssh.ServerPreAuthConn) {
		v.meta = c
		v.wire.Open()
		v.place.reached(stageExchanged)
	}
	config.PublicKeyCallback = v.offered
	config.VerifiedPublicKeyCallback = v.authorize
	config.AuthLogCallback = v.attempted

	deadline := v.ruling.limits.HandshakeDeadline
	if deadline <= 0 {
		return nil, nil, nil, errors.New("no handshake deadline")
	}
	if err := v.conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return nil, nil, nil, fmt.Errorf("setting handshake deadline: %w", err)
	}
	v.wire.Greets()
	conn, channels, requests, err := ssh.NewServerConn(v.conn, &config)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := v.wire.Greeted(); err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("ending the handshake: %w", err), conn.Close())
	}
	if err := v.conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("clearing handshake deadline: %w", err), conn.Close())
	}
	return conn, channels, requests, nil
}
