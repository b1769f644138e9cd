package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// maxPublic bounds a public key file, in bytes.
const maxPublic = 16 << 10

// loadSigner returns a signer for the key at path: a private key file that only this user can read, or a public key whose
// private half answers at the ssh-agent's socket, or a handle or locked key with such a public key beside it (.pub). The agent is dialled for each signature, so nothing is left to close.
func loadSigner(path string, agentSock string) (ssh.Signer, error) {
	if key, err := readPublic(path); err != nil {
		return nil, err
	} else if key != nil {
		return agentSigner(path, key, agentSock)
	}
	data, err := durable.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	signer, err := ssh.ParsePrivateKey(data)
	if err == nil {
		return signer, nil
	}
	// With a passphrase, or a security key's file, which is only a handle: the agent may hold what it stands for.
	if key, err := readPublic(path + ".pub"); err == nil && key != nil {
		if signer, err := agentSigner(path+".pub", key, agentSock); err == nil {
			return signer, nil
		}
	}
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, hint.New(fmt.Errorf("reading key %s: it has a passphrase", path), "load it into ssh-agent: ssh-add %s; then give %[1]s.pub", path)
	}
	return nil, hint.New(fmt.Errorf("reading key %s: %w", path, err),
		"a security key's file is only a handle: load it into ssh-agent: ssh-add %s; then give %[1]s.pub", path)
}

// readPublic returns the key if the file is a public key, nil if it is something else.
func readPublic(path string) (ssh.PublicKey, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading key: %w", err), "give the path of a private key, or of a .pub file whose key is in ssh-agent")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPublic))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("reading key %s: %w", path, err)
	}
	defer clear(data)
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		return nil, nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading key %s: neither a private nor a public key", path), "ssh-keygen -t ed25519 makes one")
	}
	return key, nil
}

// agentKey signs through an ssh-agent.
type agentKey struct {
	key    ssh.PublicKey
	socket string
}

func agentSigner(path string, key ssh.PublicKey, socket string) (ssh.Signer, error) {
	if socket == "" {
		return nil, hint.New(fmt.Errorf("%s is a public key and no ssh-agent was given", path), "start ssh-agent, so that SSH_AUTH_SOCK names its socket")
	}
	a := &agentKey{key: key, socket: socket}
	err := a.call(func(c agent.ExtendedAgent) error {
		held, err := c.List()
		if err != nil {
			return err
		}
		for _, k := range held {
			if bytes.Equal(k.Marshal(), key.Marshal()) {
				return nil
			}
		}
		return hint.New(fmt.Errorf("ssh-agent does not hold %s", path), "ssh-add the private key; ssh-add -L lists what it holds")
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (a *agentKey) PublicKey() ssh.PublicKey { return a.key }

func (a *agentKey) Sign(_ io.Reader, data []byte) (sig *ssh.Signature, err error) {
	err = a.call(func(c agent.ExtendedAgent) error {
		if sig, err = c.Sign(a.key, data); err != nil {
			err = refusedBy(c, err)
		}
		return err
	})
	return sig, err
}

func (a *agentKey) call(f func(agent.ExtendedAgent) error) error {
	conn, err := net.Dial("unix", a.socket)
	if err != nil {
		return hint.New(fmt.Errorf("reaching ssh-agent: %w", err), "SSH_AUTH_SOCK must name the socket of a running agent")
	}
	return errors.Join(f(agent.NewClient(conn)), conn.Close())
}
