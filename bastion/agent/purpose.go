package agent

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Login is a userauth request that is to be signed: RFC 4252, section 7, and OpenSSH's variant that names the host key.
type Login struct {
	SessionID []byte
	User      string
	Method    string
	Key       ssh.PublicKey // the key that logs in, or a certificate of it
	HostKey   ssh.PublicKey // with publickey-hostbound-v00@openssh.com
}

// File is an SSHSIG that is to be made: OpenSSH's PROTOCOL.sshsig.
type File struct {
	Namespace string
	Hash      string
}

// parseLogin reads what a client asks to have signed as a login request. The error names the field that is not as it should be.
func parseLogin(data []byte) (*Login, error) {
	r := reader{data: data}
	id := r.string("session identifier", maxSessionID)
	kind := r.byte("message")
	if r.err == nil && kind != msgUserauthRequest {
		return nil, fmt.Errorf("message: number %d, want %d", kind, msgUserauthRequest)
	}
	user, service, method := r.string("user", maxUser), r.string("service", 64), r.string("method", 64)
	signed := r.bool("has signature")
	algorithm, blob := r.string("algorithm", 128), r.string("public key", maxMessage)
	var hostBlob []byte
	if string(method) == methodHostBound {
		hostBlob = r.string("host key", maxMessage)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	switch {
	case len(id) < minSessionID:
		return nil, fmt.Errorf("session identifier: %d bytes, want %d to %d", len(id), minSessionID, maxSessionID)
	case string(service) != serviceConnection:
		return nil, fmt.Errorf("service: %q, want %q", service, serviceConnection)
	case string(method) != methodPublicKey && string(method) != methodHostBound:
		return nil, fmt.Errorf("method: %q, want %q or %q", method, methodPublicKey, methodHostBound)
	case !signed:
		return nil, errors.New("has signature: false")
	case len(user) == 0:
		return nil, errors.New("user: empty")
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	if !algorithmFits(string(algorithm), key.Type()) {
		return nil, fmt.Errorf("algorithm: %q for a key of type %q", algorithm, key.Type())
	}
	login := &Login{SessionID: id, User: string(user), Method: string(method), Key: key}
	if hostBlob != nil {
		if login.HostKey, err = ssh.ParsePublicKey(hostBlob); err != nil {
			return nil, fmt.Errorf("host key: %w", err)
		}
	}
	return login, nil
}

// algorithmFits: the algorithm is the key's type, but for RSA, which has several (RFC 8332).
func algorithmFits(algorithm, keyType string) bool {
	switch keyType {
	case ssh.KeyAlgoRSA:
		return algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512
	case ssh.CertAlgoRSAv01:
		return algorithm == ssh.CertAlgoRSASHA256v01 || algorithm == ssh.CertAlgoRSASHA512v01
	}
	return algorithm == keyType
}

// parseFile reads what a client asks to have signed as an SSHSIG; ok is whether it begins as one.
func parseFile(data []byte) (f *File, ok bool, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(sshsigMagic))
	if !ok {
		return nil, false, nil
	}
	r := reader{data: rest}
	namespace := r.string("namespace", maxNamespace)
	r.string("reserved", 0)
	hash, digest := r.string("hash algorithm", 16), r.string("digest", 64)
	if err := r.end(); err != nil {
		return nil, true, err
	}
	want := map[string]int{"sha256": 32, "sha512": 64}[string(hash)]
	switch {
	case len(namespace) == 0:
		return nil, true, errors.New("namespace: empty")
	case want == 0:
		return nil, true, fmt.Errorf("hash algorithm: %q, want sha256 or sha512", hash)
	case len(digest) != want:
		return nil, true, fmt.Errorf("digest: %d bytes, want %d", len(digest), want)
	}
	return &File{Namespace: string(namespace), Hash: string(hash)}, true, nil
}

// Purpose is what a signature is for, as far as the agent can tell.
type Purpose struct {
	Login   *Login // one of the two, or
	File    *File
	Host    Host // whom a login is at
	Through Host // whom the agent is lent to, if it is
	Bound   bool // the connection is bound to the login's session
}

// rules say which requests are refused.
type rules struct {
	requireBinding, refuseForwarded, allowUnknownData bool
}

// judge says what the signature would be for, or why it is not to be made. key is the key that is asked to sign; names resolves host keys.
func (r rules) judge(key ssh.PublicKey, data []byte, binds bindings, names func(ssh.PublicKey) Host) (Purpose, *Refusal) {
	var p Purpose
	if b := binds.through(); b != nil {
		p.Through = names(b.HostKey)
	}
	file, isFile, err := parseFile(data)
	if isFile && err != nil {
		return p, refuse(ReasonUnknownData, "what is to be signed begins as an SSH signature: %w", err)
	}
	p.File = file
	if !isFile {
		if p.Login, err = parseLogin(data); err != nil && !r.allowUnknownData {
			return p, refuse(ReasonUnknownData, "what is to be signed is neither a login nor an SSH signature of a file: %w", err).
				hint("--allow-unknown-data has the agent sign anything, certificates by ssh-keygen -U among it")
		}
	}
	if refusal := p.showable(); refusal != nil {
		return p, refusal
	}
	if p.Through.Key != nil && r.refuseForwarded {
		return p, refuse(ReasonForwarded, "%s, through the agent that was forwarded to %s", p.what(), p.Through).
			hint("ssh -J needs no forwarded agent; without --refuse-forwarded the agent signs through one")
	}
	if p.Login == nil {
		return p, nil
	}
	if refusal := p.bind(key, binds, names); refusal != nil {
		return p, refusal
	}
	switch {
	case !p.Bound && r.requireBinding:
		return p, refuse(ReasonUnbound, "%s: the client did not prove which session it is for (session-bind@openssh.com)", p.what()).
			hint("use OpenSSH 8.9 or later; without --require-binding the agent signs for others too")
	case p.Host.Revoked || p.Through.Revoked:
		return p, refuse(ReasonHostRevoked, "%s: known_hosts revokes this host's key", p.what())
	}
	return p, nil
}

// showable refuses what the person could not be shown as it is.
func (p *Purpose) showable() *Refusal {
	switch {
	case p.Login != nil:
		return showable("user", p.Login.User)
	case p.File != nil:
		return showable("namespace", p.File.Namespace)
	}
	return nil
}

// bind matches the login against the connection's bindings.
func (p *Purpose) bind(key ssh.PublicKey, binds bindings, names func(ssh.PublicKey) Host) *Refusal {
	own := p.Login.Key
	if c, ok := own.(*ssh.Certificate); ok {
		own = c.Key
	}
	if !bytes.Equal(own.Marshal(), key.Marshal()) && !bytes.Equal(p.Login.Key.Marshal(), key.Marshal()) {
		return refuse(ReasonWrongKey, "the login is by the key %s, the signature asked of %s", fingerprint(own), fingerprint(key))
	}
	host := p.Login.HostKey
	if b := binds.login(); b != nil {
		if !bytes.Equal(b.SessionID, p.Login.SessionID) {
			return refuse(ReasonWrongSession, "a login in another session than the one this connection is bound to, with %s", names(b.HostKey))
		}
		if host != nil && !bytes.Equal(host.Marshal(), b.HostKey.Marshal()) {
			return refuse(ReasonWrongSession, "a login at the host key %s over a session with %s", fingerprint(host), names(b.HostKey))
		}
		host, p.Bound = b.HostKey, true
	}
	if host != nil {
		p.Host = names(host)
	}
	return nil
}
