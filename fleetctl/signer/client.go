package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"mayfly/internal/hint"
	"mayfly/internal/renewal"
	"mayfly/policies/request"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
	"mayfly/tunnel/checkin"
)

// Client asks the signer of one directory. Its refusals are *join.Refusal.
type Client struct {
	socket string
	http   *http.Client
}

// Dial returns a client of the signer of dir; it connects with the first request.
func Dial(dir string) *Client {
	socket := filepath.Join(dir, SocketName)
	d := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{socket: socket, http: &http.Client{
		Timeout: requestDeadline,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialSigner(ctx, d, dir, socket)
			},
			MaxIdleConns:    2,
			IdleConnTimeout: 30 * time.Second,
		},
	}}
}

// Ticket signs a ticket and returns its exact bytes.
func (c *Client) Ticket(ctx context.Context, t ticket.Ticket) (data, sig []byte, err error) {
	f, err := ask[signedFile](ctx, c, pathTicket, t)
	return f.Data, f.Signature, err
}

// Admit begins a life with a ticket that was not used before.
func (c *Client) Admit(ctx context.Context, r join.Request) (join.Admission, error) {
	return ask[join.Admission](ctx, c, pathAdmit, r)
}

// Challenge makes what the TPM of a server has to answer before Admit, where the policy asks for a quote.
func (c *Client) Challenge(ctx context.Context, r join.ChallengeRequest) (join.Challenge, error) {
	return ask[join.Challenge](ctx, c, pathChallenge, r)
}

// Renew gives a life fresh certificates.
func (c *Client) Renew(ctx context.Context, r join.RenewRequest) (join.Certificates, error) {
	return ask[join.Certificates](ctx, c, pathRenew, r)
}

// Drained signs the statement that this life of a server takes no traffic, for engineers, until expires, by people's leave for as long as span.
func (c *Client) Drained(ctx context.Context, server string, epoch uint64, expires time.Time, span time.Duration, leave *request.Signed) (data, sig []byte, err error) {
	f, err := ask[signedFile](ctx, c, pathDrained, drainedRequest{Server: server, Epoch: epoch, Expires: expires, For: span, Request: leave})
	return f.Data, f.Signature, err
}

// Extend lets the present life of a server go on, by what approvers signed, and returns its new end.
func (c *Client) Extend(ctx context.Context, data, sigs []byte) (ends time.Time, err error) {
	a, err := ask[extendAnswer](ctx, c, pathExtend, extendRequest{Data: data, Signatures: sigs})
	return a.Ends, err
}

// List signs a server list.
func (c *Client) List(ctx context.Context, l checkin.List) (checkin.Signed, error) {
	return ask[checkin.Signed](ctx, c, pathList, l)
}

// Service certifies the key of a request for NAME.DOMAIN, NAME being inventory.NameController or NameCheckin, for ServiceLife.
func (c *Client) Service(ctx context.Context, name string, csr []byte) (chainPEM []byte, err error) {
	a, err := ask[serviceAnswer](ctx, c, pathService, serviceRequest{Name: name, CSR: csr})
	return a.Chain, err
}

// Host certifies the SSH host key of a bastion, for MaxHostLife, and makes it the one that the bastion may renew by itself. One that it was not
// before takes people's leave; without says that nobody had to be asked, in a test fleet.
func (c *Client) Host(ctx context.Context, bastion, hostKey string, leave *request.Signed) (cert string, without bool, err error) {
	a, err := ask[hostAnswer](ctx, c, pathHost, hostRequest{Bastion: bastion, HostKey: hostKey, Request: leave})
	return a.Certificate, a.Without, err
}

// RenewHost passes on a bastion's own request.
func (c *Client) RenewHost(ctx context.Context, r renewal.Request) (renewal.Answer, error) {
	return ask[renewal.Answer](ctx, c, pathRenewal, r)
}

// Page certifies an engineer's key for the page, by people's leave. without says that nobody had to be asked, in a test fleet.
func (c *Client) Page(ctx context.Context, engineer string, csr []byte, length time.Duration, leave *request.Signed) (chainPEM []byte, without bool, err error) {
	a, err := ask[pageAnswer](ctx, c, pathPage, pageRequest{Engineer: engineer, CSR: csr, For: length, Request: leave})
	return a.Chain, a.Without, err
}

// LogRelease puts a release into the fleet's public ledger, once, and returns its record's number with the proof that it is there. The proof's
// checkpoint is the signer's own; audit.Prove in LedgerDir gives one that witnesses cosigned, as soon as they have.
func (c *Client) LogRelease(ctx context.Context, statement, signatures []byte) (index uint64, proof []byte, err error) {
	a, err := ask[releaseAnswer](ctx, c, pathRelease, releaseRequest{Statement: statement, Signatures: signatures})
	return a.Index, a.Proof, err
}

// UsedTwice tells of a ticket that came a second time. It can take away, and never gives.
func (c *Client) UsedTwice(ctx context.Context, data, sig []byte) error {
	_, err := ask[struct{}](ctx, c, pathTwice, twiceRequest{Ticket: data, Signature: sig})
	return err
}

// End logs that a server's life is over, if this one or an earlier one was running: ledger.Rotated or ledger.Failed.
func (c *Client) End(ctx context.Context, server string, through uint64, reason string) (logged bool, err error) {
	a, err := ask[endAnswer](ctx, c, pathEnd, endRequest{Server: server, Through: through, Reason: reason})
	return a.Logged, err
}

func ask[A any](ctx context.Context, c *Client, path string, question any) (A, error) {
	var none A
	data, err := join.Encode(question)
	if err != nil {
		return none, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://signer"+path, bytes.NewReader(data))
	if err != nil {
		return none, fmt.Errorf("asking the signer for %s: %w", path, err)
	}
	req.GetBody = nil // a ticket is not sent twice
	res, err := c.http.Do(req)
	if err != nil {
		err = fmt.Errorf("asking the signer for %s: %w", path, err)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
			err = hint.New(err, "start it with: fleetctl signer --dir %s", filepath.Dir(c.socket))
		}
		return none, err
	}
	defer res.Body.Close()
	body, err := join.ReadBody(res.Body, maxBody)
	if err != nil {
		return none, fmt.Errorf("asking the signer for %s: %w", path, err)
	}
	if res.StatusCode != http.StatusOK {
		r, err := join.Decode[join.Refusal](body, maxBody)
		if err != nil || r.Reason == "" {
			return none, fmt.Errorf("asking the signer for %s: status %d", path, res.StatusCode)
		}
		return none, &r
	}
	a, err := join.Decode[A](body, maxBody)
	if err != nil {
		return none, fmt.Errorf("asking the signer for %s: %w", path, err)
	}
	return a, nil
}
