package checkin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"mayfly/internal/pki"
)

// fetchLimit is the longest that one check-in may take.
const fetchLimit = 20 * time.Second

// maxSigned bounds the answer: the list in base64, the signature, the braces.
const maxSigned = MaxList/3*4 + 64<<10

// Client checks in, and remembers the newest list so that nobody can put it back. Not for several goroutines at once.
type Client struct {
	Config ClientConfig
	Dial   func(ctx context.Context, network, address string) (net.Conn, error) // nil: the system's

	seen time.Time
}

// Fetch gets the list and returns it only if it is good at now. A refusal is a *Refusal.
func (c *Client) Fetch(ctx context.Context, now time.Time) (*List, error) {
	s, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	l, err := Open(c.Config, s, now, c.seen)
	if err != nil {
		return nil, err
	}
	c.seen = l.Issued
	return l, nil
}

// Fetch is one check-in by a client that has seen no list before.
func Fetch(ctx context.Context, c ClientConfig, now time.Time) (*List, error) {
	return (&Client{Config: c}).Fetch(ctx, now)
}

func (c *Client) get(ctx context.Context) (Signed, error) {
	var s Signed
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	t := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        pki.VerifyName([]byte(c.Config.CA), c.Config.Name),
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.Config.Checkin+PathServers, nil)
	if err != nil {
		return s, refuse(Unreachable, "asking check-in: %w", err)
	}
	client := http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if Distrusted(err) {
			return s, refuse(Untrusted, "asking check-in at %s: %w", c.Config.Checkin, err)
		}
		return s, refuse(Unreachable, "asking check-in at %s: %w", c.Config.Checkin, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, refuse(Unreachable, "asking check-in at %s: it answered %s", c.Config.Checkin, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSigned+1))
	if err != nil {
		return s, refuse(Unreachable, "reading check-in's answer: %w", err)
	}
	return parseSigned(body)
}

func parseSigned(body []byte) (Signed, error) {
	var s Signed
	if len(body) > maxSigned {
		return s, refuse(TooLarge, "check-in answered more than %d bytes", maxSigned)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, refuse(Malformed, "reading check-in's answer: %w", err)
	}
	if len(s.List) == 0 || len(s.Signature) == 0 {
		return s, refuse(Unsigned, "check-in's answer holds no signed list")
	}
	return s, nil
}

// Distrusted tells an error of a TLS handshake in which the other side was not who it should be.
func Distrusted(err error) bool {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &name) || errors.As(err, &invalid)
}
