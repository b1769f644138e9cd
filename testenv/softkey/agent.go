package softkey

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// errReadOnly answers everything but listing and signing.
var errReadOnly = errors.New("the software authenticator only lists and signs")

// Agent is an ssh-agent that holds fixed signers. Clients can list and sign, nothing else.
type Agent struct{ signers []ssh.Signer }

var _ agent.ExtendedAgent = &Agent{}

// NewAgent holds these signers.
func NewAgent(signers ...ssh.Signer) *Agent { return &Agent{signers: signers} }

func (a *Agent) List() ([]*agent.Key, error) {
	var keys []*agent.Key
	for _, s := range a.signers {
		keys = append(keys, &agent.Key{Format: s.PublicKey().Type(), Blob: s.PublicKey().Marshal(), Comment: Comment})
	}
	return keys, nil
}

func (a *Agent) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	for _, s := range a.signers {
		if bytes.Equal(s.PublicKey().Marshal(), key.Marshal()) {
			return s.Sign(rand.Reader, data)
		}
	}
	return nil, errors.New("no such key")
}

func (a *Agent) SignWithFlags(key ssh.PublicKey, data []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
	return a.Sign(key, data)
}

func (a *Agent) Signers() ([]ssh.Signer, error)           { return a.signers, nil }
func (a *Agent) Extension(string, []byte) ([]byte, error) { return nil, agent.ErrExtensionUnsupported }
func (a *Agent) Add(agent.AddedKey) error                 { return errReadOnly }
func (a *Agent) Remove(ssh.PublicKey) error               { return errReadOnly }
func (a *Agent) RemoveAll() error                         { return errReadOnly }
func (a *Agent) Lock([]byte) error                        { return errReadOnly }
func (a *Agent) Unlock([]byte) error                      { return errReadOnly }

// Listen opens the agent's socket, 0600. A stale socket file is replaced; any other file is left alone and refused.
func Listen(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("opening agent socket %s: a file that is no socket is there", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("opening agent socket %s: another agent answers there", path), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("opening agent socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening agent socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("opening agent socket: %w", err), l.Close())
	}
	return l, nil
}

// maxClients bounds the agent's clients at a time.
const maxClients = 64

// Serve answers agent clients until ctx ends; it closes the listener and every connection before it returns.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var clients sync.WaitGroup
	defer clients.Wait()
	slots := make(chan struct{}, maxClients)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting agent client: %w", err)
		}
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			// A client that leaves ends this with an error; there is nobody to tell.
			agent.ServeAgent(a, conn)
		})
	}
}
