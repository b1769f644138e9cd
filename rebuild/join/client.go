package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/ticket"
)

// Deadlines of a server towards its controller.
const (
	DialTimeout    = 5 * time.Second
	RequestTimeout = 30 * time.Second
	StreamTimeout  = 10 * time.Second // to open a stream
	maxAnswerError = 4 << 10
)

// Client talks to one controller, whose name and CA a ticket fixed.
type Client struct {
	address string
	tls     *tls.Config
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// NewClient returns a client of the ticket's controller. It trusts the ticket's CA for the ticket's controller name and nothing
// else; TLS 1.3 only.
func NewClient(t *ticket.Ticket) (*Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(t.CA)) {
		return nil, errors.New("the ticket's ca is no certificate")
	}
	d := &net.Dialer{Timeout: DialTimeout}
	return &Client{
		address: t.Controller,
		tls: &tls.Config{
			MinVersion: tls.VersionTLS13,
			RootCAs:    pool,
			ServerName: t.Name,
		},
		dial: d.DialContext,
	}, nil
}

// At is this client with another idea of what time it is, by which it judges the controller's certificate.
func (c *Client) At(now func() time.Time) *Client {
	at := *c
	at.tls = c.tls.Clone()
	at.tls.Time = now
	return &at
}

// Unused says that nothing of a request reached the controller: a ticket sent in it is not used up.
type Unused struct{ Err error }

func (u *Unused) Error() string { return u.Err.Error() }

// Unwrap returns the cause.
func (u *Unused) Unwrap() error { return u.Err }

// Join begins this machine's life. A *Refusal is final, an *Unused may be tried again, anything else leaves it unknown whether
// the ticket was used.
func (c *Client) Join(ctx context.Context, r Request) (Response, error) {
	return post[Response](ctx, c, nil, PathJoin, r)
}

// Challenge asks for what the TPM has to answer. It uses nothing up: whatever its error, it may be asked again.
func (c *Client) Challenge(ctx context.Context, r ChallengeRequest) (Challenge, error) {
	return post[Challenge](ctx, c, nil, PathChallenge, r)
}

// Report tells the controller why this boot stopped.
func (c *Client) Report(ctx context.Context, r Report) error {
	if len(r.Detail) > MaxDetail {
		r.Detail = r.Detail[:MaxDetail]
	}
	_, err := post[struct{}](ctx, c, nil, PathReport, r)
	return err
}

// Renew gets fresh certificates for the same keys over a connection that shows the current one.
func (c *Client) Renew(ctx context.Context, current tls.Certificate, r RenewRequest) (Certificates, error) {
	return post[Certificates](ctx, c, &current, PathRenew, r)
}

// connect opens a TLS connection; its errors are *Unused.
func (c *Client) connect(ctx context.Context, cert *tls.Certificate, protocol string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	raw, err := c.dial(ctx, "tcp", c.address)
	if err != nil {
		return nil, &Unused{fmt.Errorf("connecting to the controller: %w", err)}
	}
	config := c.tls.Clone()
	config.NextProtos = []string{protocol}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, &Unused{errors.Join(fmt.Errorf("TLS with the controller: %w", err), raw.Close())}
	}
	return conn, nil
}

// post makes one request over a connection of its own.
func post[A any](ctx context.Context, c *Client, cert *tls.Certificate, path string, body any) (A, error) {
	var none A
	data, err := Encode(body)
	if err != nil {
		return none, err
	}
	conn, err := c.connect(ctx, cert, "http/1.1")
	if err != nil {
		return none, err
	}
	// The transport closes it once the answer is read; this is for the ways that do not come so far.
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	once := &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.address+path, bytes.NewReader(data))
	if err != nil {
		return none, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.GetBody = nil // never sent twice
	res, err := once.RoundTrip(req)
	if err != nil {
		return none, fmt.Errorf("asking the controller for %s: %w", path, err)
	}
	defer res.Body.Close()
	return readAnswer[A](res, path)
}

func readAnswer[A any](res *http.Response, path string) (A, error) {
	var none A
	limit := MaxFrame
	if res.StatusCode != http.StatusOK {
		limit = maxAnswerError
	}
	data, err := ReadBody(res.Body, limit)
	if err != nil {
		return none, fmt.Errorf("answer to %s: %w", path, err)
	}
	if res.StatusCode != http.StatusOK {
		r, err := Decode[Refusal](data, limit)
		if err != nil || r.Reason == "" {
			return none, fmt.Errorf("asking the controller for %s: status %d", path, res.StatusCode)
		}
		return none, &r
	}
	a, err := Decode[A](data, limit)
	if err != nil {
		return none, fmt.Errorf("answer to %s: %w", path, err)
	}
	return a, nil
}

// Stream opens the one stream of orders and health. Both ends set deadlines on it: a silence of StreamSilence ends it.
func (c *Client) Stream(ctx context.Context, current tls.Certificate) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, StreamTimeout)
	defer cancel() // of connecting alone
	conn, err := c.connect(ctx, &current, StreamProtocol)
	if err != nil {
		return nil, err
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != StreamProtocol {
		return nil, errors.Join(fmt.Errorf("the controller speaks %q, not %q", got, StreamProtocol), conn.Close())
	}
	if err := unheard(conn.NetConn(), StreamSilence); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// unheard makes a connection end when what was sent on it is not acknowledged for so long. The controller says nothing while there is nothing
// to say: without this, a server whose network was gone would go on waiting for orders on a connection that the other end gave up.
func unheard(c net.Conn, limit time.Duration) error {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("bounding the stream's silence: %w", err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	})
	if err = errors.Join(err, set); err != nil {
		return fmt.Errorf("bounding the stream's silence: %w", err)
	}
	return nil
}

// StreamSilence is the longest time that the controller waits for a server's next health message, and the server for an
// acknowledgement of what it sent.
const StreamSilence = 15 * time.Second
