package agent

import (
	"bytes"

	"golang.org/x/crypto/ssh"
)

// Bind is a verified session-bind@openssh.com: this connection to the agent belongs to the SSH session with that host.
type Bind struct {
	HostKey   ssh.PublicKey // a certificate where the host showed one
	SessionID []byte
	Forwarded bool // the agent is lent to that host; otherwise a user logs in there

	contents []byte // as it came, for chained agents
}

// parseBind reads the extension's contents, after its name, and verifies that the host's key signed the session's identifier.
// What names the host after this is a proof by the host, unless the client itself lies and holds that host's key.
func parseBind(contents []byte) (*Bind, *Refusal) {
	r := reader{data: contents}
	blob := r.string("host key", maxMessage)
	id := r.string("session identifier", maxSessionID)
	signature := r.string("signature", maxMessage)
	forwarded := r.bool("forwarding flag")
	err := r.end()
	if err != nil {
		return nil, refuse(ReasonBindMalformed, "session-bind: %w", err)
	}
	if len(id) < minSessionID {
		return nil, refuse(ReasonBindMalformed, "session-bind: session identifier: %d bytes, want %d to %d", len(id), minSessionID, maxSessionID)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, refuse(ReasonBindMalformed, "session-bind: host key: %w", err)
	}
	if !bytes.Equal(key.Marshal(), blob) {
		return nil, refuse(ReasonBindMalformed, "session-bind: host key: not in its one form")
	}
	sig, err := parseSignature(signature)
	if err != nil {
		return nil, refuse(ReasonBindMalformed, "session-bind: signature: %w", err)
	}
	if err := key.Verify(id, sig); err != nil {
		return nil, refuse(ReasonBindSignature, "session-bind: the host key %s did not sign this session: %w", fingerprint(key), err)
	}
	return &Bind{HostKey: key, SessionID: id, Forwarded: forwarded, contents: contents}, nil
}

// parseSignature reads a signature as hosts make them: a format and a blob, nothing behind it.
func parseSignature(data []byte) (*ssh.Signature, error) {
	r := reader{data: data}
	format, blob := r.string("format", 64), r.string("blob", maxMessage)
	if err := r.end(); err != nil {
		return nil, err
	}
	return &ssh.Signature{Format: string(format), Blob: blob}, nil
}

// bindings are those of one connection, in order: any number of hosts that the agent was lent to, then perhaps the one to log in at.
type bindings []*Bind

// add follows OpenSSH's rules: what was bound for a login is bound for good; a session has one host key; the same again changes nothing.
func (b *bindings) add(next *Bind) *Refusal {
	for _, known := range *b {
		same := bytes.Equal(known.SessionID, next.SessionID)
		key := bytes.Equal(known.HostKey.Marshal(), next.HostKey.Marshal())
		switch {
		case same && key && known.Forwarded == next.Forwarded:
			return nil
		case same && !key:
			return refuse(ReasonBindOrder, "session-bind: this session is bound to another host key already")
		case same:
			return refuse(ReasonBindOrder, "session-bind: this session is bound already, with another forwarding flag")
		case !known.Forwarded:
			return refuse(ReasonBindOrder, "session-bind: this connection is bound for a login already")
		}
	}
	if len(*b) == maxBinds {
		return refuse(ReasonBindFull, "session-bind: more than %d for one connection", maxBinds)
	}
	*b = append(*b, next)
	return nil
}

// login is the binding for a login, or nil.
func (b bindings) login() *Bind {
	if n := len(b); n > 0 && !b[n-1].Forwarded {
		return b[n-1]
	}
	return nil
}

// through is the last host that the agent was lent to, or nil.
func (b bindings) through() *Bind {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i].Forwarded {
			return b[i]
		}
	}
	return nil
}

// fingerprint is that of a key, also of the one in a certificate.
func fingerprint(key ssh.PublicKey) string {
	if c, ok := key.(*ssh.Certificate); ok {
		key = c.Key
	}
	return ssh.FingerprintSHA256(key)
}
