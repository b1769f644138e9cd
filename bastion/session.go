package bastion

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"mayfly/bastion/recording"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
)

// SessionConfig is [session] of bastion.toml. All three or none.
type SessionConfig struct {
	CA         string `toml:"ca"`         // Ed25519 private key of the session authority, OpenSSH form, mode 0600
	HostCAs    string `toml:"host_cas"`   // the fleet's known_hosts: whose host certificates are believed, and which are revoked
	Recordings string `toml:"recordings"` // directory of the recordings
}

func (c SessionConfig) check() error {
	if c == (SessionConfig{}) {
		return nil
	}
	for _, p := range []struct{ key, value string }{{"ca", c.CA}, {"host_cas", c.HostCAs}, {"recordings", c.Recordings}} {
		if p.value == "" {
			return fmt.Errorf("session.%s is missing: a path", p.key)
		}
	}
	return nil
}

// Implementation constants of the session mode.
const (
	sessionBackdate = 30 * time.Second // clocks differ
	sessionLife     = 90 * time.Second // of a certificate after it was made: the login takes no longer
	loginLimit      = 15 * time.Second // for the server's handshake
	userSeparators  = "%+"             // between engineer and server in a user name
)

// sessionMode is what the bastion logs in at servers by.
type sessionMode struct {
	config    SessionConfig
	authority ssh.Signer
}

// loadSessions loads the session authority's key, or nothing where there is no session mode.
func loadSessions(c Config) (*sessionMode, error) {
	if c.Session == (SessionConfig{}) {
		return nil, nil
	}
	secret, err := durable.ReadSecret(c.Session.CA)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading session authority: %w", err), "make one: ssh-keygen -t ed25519 -N '' -f %s", c.Session.CA)
	}
	signer, err := ssh.ParsePrivateKey(secret)
	clear(secret)
	if err != nil {
		return nil, fmt.Errorf("reading session authority %s: %w", c.Session.CA, err)
	}
	if t := signer.PublicKey().Type(); t != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("reading session authority %s: type %s, want %s", c.Session.CA, t, ssh.KeyAlgoED25519)
	}
	if _, err := knownhosts.New(c.Session.HostCAs); err != nil {
		return nil, hint.New(fmt.Errorf("reading host authorities: %w", err), "fleetctl publishes public/known_hosts")
	}
	if info, err := os.Stat(c.Session.Recordings); err != nil || !info.IsDir() {
		return nil, hint.New(errors.Join(fmt.Errorf("recordings %s: no such directory", c.Session.Recordings), err), "mkdir -m 700 %s", c.Session.Recordings)
	}
	return &sessionMode{config: c.Session, authority: signer}, nil
}

// sessionRecipients are whoever may read recordings under this policy.
func sessionRecipients(b *bundle.Bundle) ([]age.Recipient, error) {
	if !b.Policy.Session.On() {
		return nil, nil
	}
	recipients, err := recording.ParseRecipients(b.Policy.Session.Recipients)
	if err != nil {
		return nil, hint.New(fmt.Errorf("session.recipients of the policy: %w", err), "age-keygen prints a recipient")
	}
	return recipients, nil
}

// off says why there can be no session under this policy, or nothing.
func (m *sessionMode) off(r *ruling) string {
	switch {
	case m == nil:
		return "bastion.toml has no [session]"
	case !r.bundle.Policy.Session.On():
		return "the policy has no session mode"
	case trust.FormatKey(m.authority.PublicKey()) != r.bundle.Policy.Session.Authority:
		return "the policy's session.authority is not this bastion's"
	}
	return ""
}

// ReportSession is whether this bastion can open servers by itself, and which.
type ReportSession struct {
	On         bool     `json:"on"`
	Why        string   `json:"why,omitempty"` // it is off
	Authority  string   `json:"authority,omitempty"`
	Recipients []string `json:"recipients"`
	Grants     []string `json:"grants"` // "anna at se-1"
}

func (m *sessionMode) report(r *ruling) ReportSession {
	report := ReportSession{Why: m.off(r), Recipients: []string{}, Grants: []string{}}
	if report.On = report.Why == ""; !report.On {
		return report
	}
	report.Authority = ssh.FingerprintSHA256(m.authority.PublicKey())
	report.Recipients = r.bundle.Policy.Session.Recipients
	for _, server := range r.bundle.Inventory.Servers {
		for _, name := range r.bundle.Policy.SessionUsers(server.Name, r.bundle.Inventory, time.Now()) {
			report.Grants = append(report.Grants, name+" at "+server.Name)
		}
	}
	return report
}

// splitUser takes a user name apart: anna%se-1, or anna+se-1, is anna who wants a session at se-1. No account's name has either sign.
func splitUser(name string) (user, server string) {
	if i := strings.IndexAny(name, userSeparators); i >= 0 {
		return name[:i], name[i+1:]
	}
	return name, ""
}

// user is whom a connection claims to be, and where the session is to go that it asks for.
func (s *Server) user(name string) (user, server string) {
	if s.session == nil {
		return name, ""
	}
	return splitUser(name)
}

// session logs in at the server that the user name asked for, and relays and records what is shown there.
func (v *visit) session(ctx context.Context, nc ssh.NewChannel) {
	if v.wanted == "" {
		v.refuse(nc, nc.ChannelType(), channelRefused, "")
		return
	}
	what := "session " + v.wanted
	if why := v.server.session.off(v.server.ruling.Load()); why != "" {
		v.refuse(nc, what, channelRefused, why)
		return
	}
	target := policies.Target{Server: serverName(&v.server.ruling.Load().bundle.Inventory, v.wanted), Port: inventory.PortSSH}
	v.toTarget(ctx, nc, what, target, true, func(ctx context.Context, o *opened, conn halfCloser) {
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		defer conn.Close()
		client, why, err := v.server.session.login(v, o, conn)
		if err != nil {
			o.finish(endRefused, why)
			v.refuse(nc, what, why, err.Error())
			return
		}
		defer drainLibrary(client)
		defer client.Close()
		channel, requests, err := nc.Accept()
		if err != nil {
			o.finish(endLost, "")
			return
		}
		v.relay(ctx, o, client, channel, requests)
	})
}

// login logs in at the server as the engineer, by a certificate that is good for this one login from this address.
func (m *sessionMode) login(v *visit, o *opened, conn net.Conn) (*ssh.Client, policies.Reason, error) {
	r := v.server.ruling.Load()
	believed, err := knownhosts.New(m.config.HostCAs)
	if err != nil {
		return nil, sessionLoginRefused, fmt.Errorf("reading host authorities: %w", err)
	}
	signer, err := m.certify(v, conn.LocalAddr(), time.Now())
	if err != nil {
		return nil, sessionLoginRefused, err
	}
	algorithms, err := r.bundle.Policy.SSH.Algorithms()
	if err != nil {
		return nil, sessionLoginRefused, err
	}
	name := o.target.Server
	if d := r.bundle.Inventory.Domain; d != "" {
		name += "." + d
	}
	var hostErr error
	config := &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: algorithms.KeyExchanges, Ciphers: algorithms.Ciphers, MACs: algorithms.MACs, RekeyThreshold: rekeyThreshold},
		User:              v.login.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyAlgorithms: algorithms.HostKeys,
		ClientVersion:     serverVersion,
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			hostErr = believed(host, remote, key)
			return hostErr
		},
	}
	if err := conn.SetDeadline(time.Now().Add(loginLimit)); err != nil {
		return nil, sessionLoginRefused, err
	}
	inner, channels, requests, err := ssh.NewClientConn(conn, net.JoinHostPort(name, fmt.Sprint(inventory.PortSSH)), config)
	if err != nil {
		if hostErr != nil {
			return nil, hostKeyRefused, fmt.Errorf("host key of %s: %w", name, hostErr)
		}
		return nil, sessionLoginRefused, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, sessionLoginRefused, errors.Join(err, inner.Close())
	}
	return ssh.NewClient(inner, channels, requests), "", nil
}

// certify makes a key that lives as long as this session's login, and a certificate for it: for this engineer, from this bastion's
// address, with a terminal and nothing else. Its key id is the reference of the connection in the audit log.
func (m *sessionMode) certify(v *visit, from net.Addr, now time.Time) (ssh.Signer, error) {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("certifying a session: %s is no address", from)
	}
	source := tcp.AddrPort().Addr().Unmap().WithZone("")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certifying a session: %w", err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("certifying a session: %w", err)
	}
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return nil, fmt.Errorf("certifying a session: %w", err)
	}
	certificate := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: v.id, Serial: binary.BigEndian.Uint64(serial[:]) >> 1,
		ValidPrincipals: []string{v.login.User},
		ValidAfter:      uint64(now.Add(-sessionBackdate).Unix()), ValidBefore: uint64(now.Add(sessionLife).Unix()),
		Permissions: ssh.Permissions{
			CriticalOptions: map[string]string{"source-address": source.String()},
			Extensions:      map[string]string{"permit-pty": ""},
		},
	}
	if err := certificate.SignCert(rand.Reader, m.authority); err != nil {
		return nil, fmt.Errorf("certifying a session: %w", err)
	}
	return ssh.NewCertSigner(certificate, key)
}

// absolute makes the paths of a configuration file at dir absolute.
func (c *SessionConfig) absolute(dir string) {
	for _, p := range []*string{&c.CA, &c.HostCAs, &c.Recordings} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}
