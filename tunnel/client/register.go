package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"mayfly/internal/pki"
	"mayfly/policies/ledger"
	"mayfly/tunnel/checkin"
	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// Limits of what is asked of a server.
const (
	registerLimit  = 15 * time.Second // a registration
	handshakeLimit = 10 * time.Second // TLS
)

// Untrusted is a server that is not who it should be. It is a refusal of ours, not a failure.
type Untrusted struct{ Err error }

func (u *Untrusted) Error() string { return "server_untrusted: " + u.Err.Error() }
func (u *Untrusted) Unwrap() error { return u.Err }

// Refused tells command.ExitCode that this is a refusal.
func (u *Untrusted) Refused() bool { return true }

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// grant is a registered session, checked.
type grant struct {
	server    checkin.Server
	private   device.Key
	public    device.Key // the server's
	preshared device.Key
	address   netip.Addr
	dns       netip.Addr
	endpoint  netip.AddrPort
	notice    netip.AddrPort
	keepalive time.Duration
	mtu       int
	ends      time.Time // when the server's life is over, by its proof; zero where none was asked for
}

// register makes a key and registers it at a server.
func register(ctx context.Context, c checkin.ClientConfig, server checkin.Server, dial dialer) (grant, error) {
	private, err := device.NewPrivateKey()
	if err != nil {
		return grant{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, registerLimit)
	defer cancel()
	at := netip.AddrPortFrom(server.Address, server.Register)
	body := wire.Registration{PublicKey: private.Public().Base64(), Life: c.Require != ledger.RequireNothing}
	var answer wire.Session
	client := httpClient(c, server, dial)
	defer client.CloseIdleConnections()
	state, err := askLong(ctx, client, http.MethodPost, "https://"+at.String()+wire.PathRegister, body, &answer, wire.MaxSession)
	if err != nil {
		return grant{}, fmt.Errorf("registering at %s: %w", server.Name, err)
	}
	ends, err := checkLife(c, server, state, answer.Life, time.Now())
	if err != nil {
		return grant{}, fmt.Errorf("registering at %s: %w", server.Name, err)
	}
	g, err := check(answer)
	if err != nil {
		return grant{}, fmt.Errorf("registering at %s: its answer: %w", server.Name, err)
	}
	g.server, g.private, g.ends = server, private, ends
	// The list's address is the one that was signed; the server knows only on which of its own it was reached.
	g.endpoint = netip.AddrPortFrom(server.Address, answer.Endpoint.Port())
	return g, nil
}

// checkLife holds what a server shows of its life against the key that it proved on the same connection, and returns when that life ends.
func checkLife(c checkin.ClientConfig, server checkin.Server, state *tls.ConnectionState, proof []byte, now time.Time) (ends time.Time, err error) {
	if c.Require == ledger.RequireNothing {
		return time.Time{}, nil
	}
	keys, err := c.LedgerKeys()
	if err != nil {
		return time.Time{}, err
	}
	var key ed25519.PublicKey
	if state != nil && len(state.PeerCertificates) > 0 {
		key, _ = state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	}
	life, err := keys.Life(c.Require, server.Name, key, proof, now)
	return life.Deadline, err
}

func check(s wire.Session) (grant, error) {
	g := grant{
		address: s.Address.Addr(), dns: s.DNS, notice: s.Notice, mtu: s.MTU,
		keepalive: time.Duration(s.KeepaliveSeconds) * time.Second,
	}
	var err error
	if g.public, err = device.ParsePublicKey(s.ServerKey); err != nil {
		return g, fmt.Errorf("server_key: %w", err)
	}
	if g.preshared, err = device.ParseKey(s.PresharedKey); err != nil {
		return g, fmt.Errorf("preshared_key: %w", err)
	}
	switch {
	case g.preshared.IsZero():
		return g, errors.New("preshared_key: all zero would be none")
	case !s.Address.IsValid() || !s.Address.IsSingleIP() || !inner(s.Address.Addr()):
		return g, fmt.Errorf("address %q is not one private IPv4 address", s.Address)
	case !inner(s.DNS) || s.DNS == g.address || !netip.PrefixFrom(g.address, widest).Contains(s.DNS):
		return g, fmt.Errorf("dns %q", s.DNS)
	case s.Notice.Addr() != s.DNS || s.Notice.Port() == 0:
		return g, fmt.Errorf("notice %q is not on the tunnel address", s.Notice)
	case s.Endpoint.Port() == 0:
		return g, fmt.Errorf("endpoint %q", s.Endpoint)
	case s.KeepaliveSeconds < 0 || s.KeepaliveSeconds > 3600:
		return g, fmt.Errorf("keepalive_seconds %d", s.KeepaliveSeconds)
	case s.MTU < 1280 || s.MTU > 9000:
		return g, fmt.Errorf("mtu %d", s.MTU)
	}
	return g, nil
}

// widest is the length of a server's longest network: its own address and a client's share these bits.
const widest = 16

// shared is for networks behind a provider's NAT (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// inner tells an address that can be a tunnel's. With any other, a server could draw to itself what is meant for somebody else.
func inner(a netip.Addr) bool { return a.Is4() && (a.IsPrivate() || shared.Contains(a)) }

// release gives a session back, from inside it.
func release(ctx context.Context, client *http.Client, g grant) error {
	body := wire.Release{PublicKey: g.private.Public().Base64()}
	var none struct{}
	return ask(ctx, client, http.MethodPost, "https://"+g.notice.String()+wire.PathRelease, body, &none)
}

// httpClient speaks to one server, whoever it is reached through: TLS 1.3 with the hybrid exchange only, the fleet's CA, the
// server's own name.
func httpClient(c checkin.ClientConfig, server checkin.Server, dial dialer) *http.Client {
	config := pki.VerifyName([]byte(c.CA), server.Name+"."+c.Domain)
	config.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dial,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    handshakeLimit,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends body, if there is one, and reads the answer strictly into v. A refusal is a *wire.Refusal.
func ask(ctx context.Context, client *http.Client, method, url string, body, v any) error {
	_, err := askLong(ctx, client, method, url, body, v, wire.MaxBody)
	return err
}

// askLong is ask for an answer of at most limit bytes, and tells on which connection it came.
func askLong(ctx context.Context, client *http.Client, method, url string, body, v any, limit int) (*tls.ConnectionState, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "") // tells nothing
	resp, err := client.Do(req)
	if err != nil {
		if checkin.Distrusted(err) {
			return nil, &Untrusted{err}
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return resp.TLS, wire.Decode(resp.Body, limit, v)
	}
	var refusal wire.Refusal
	if err := wire.Decode(resp.Body, wire.MaxBody, &refusal); err != nil || refusal.Reason == "" {
		return nil, fmt.Errorf("the server answered %s", resp.Status)
	}
	return nil, &refusal
}
