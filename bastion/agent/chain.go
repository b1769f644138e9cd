package agent

import (
	"bytes"
	"context"
	"net"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// chained is one client's connection to another agent, opened when it is needed first. One goroutine uses it.
type chained struct {
	socket string
	via    []byte  // agents that the requests come through, this one last
	binds  []*Bind // told to it already
	conn   net.Conn
	agent  sshagent.ExtendedAgent
}

// with runs f on the connection; a client that goes away, and an error, close it, since what it would say next answers nothing that anybody asked.
func (c *chained) with(ctx context.Context, binds bindings, f func(sshagent.ExtendedAgent) error) error {
	fresh := false
	if c.conn == nil {
		dialer := net.Dialer{Timeout: dialTime}
		conn, err := dialer.DialContext(ctx, "unix", c.socket)
		if err != nil {
			return err
		}
		c.conn, c.agent, c.binds = conn, sshagent.NewClient(conn), nil
		fresh = true
	}
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	if fresh && len(c.via) > 0 {
		_, _ = c.agent.Extension(extensionChain, c.via) // agents of others do not know it
	}
	c.bind(binds)
	err := f(c.agent)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.close()
	}
	return err
}

// bind passes on the bindings that the agent does not have yet. One that refuses them, or knows none, keeps its own rules; one that has
// gone fails at what comes next.
func (c *chained) bind(binds bindings) {
	for _, b := range binds[len(c.binds):] {
		_, _ = c.agent.Extension(extensionBind, b.contents)
		c.binds = append(c.binds, b)
	}
}

func (c *chained) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn, c.agent, c.binds = nil, nil, nil
	}
}

// list returns the agent's keys.
func (c *chained) list(ctx context.Context, binds bindings) (keys []*sshagent.Key, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, chainWait, errChainTime)
	defer cancel()
	err = c.with(ctx, binds, func(a sshagent.ExtendedAgent) (err error) {
		keys, err = a.List()
		return err
	})
	if len(keys) > maxChainedKeys {
		keys = keys[:maxChainedKeys]
	}
	return keys, err
}

// sign passes a request on as it is: its keys are under its own rules.
func (c *chained) sign(ctx context.Context, binds bindings, key, data []byte, flags uint32) (sig *ssh.Signature, err error) {
	var format reader
	format.data = key
	k := &sshagent.Key{Format: string(format.string("format", 128)), Blob: key}
	if format.err != nil {
		return nil, format.err
	}
	err = c.with(ctx, binds, func(a sshagent.ExtendedAgent) (err error) {
		sig, err = a.SignWithFlags(k, data, sshagent.SignatureFlags(flags))
		return err
	})
	return sig, err
}

// has is whether one of the keys is this one.
func has(keys []*sshagent.Key, blob []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k.Blob, blob) {
			return true
		}
	}
	return false
}
