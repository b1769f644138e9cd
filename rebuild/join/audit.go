package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"
)

// Deadlines of bringing audit records to the controller.
const (
	AuditTimeout = 8 * time.Second  // of one batch
	auditIdle    = 20 * time.Second // shorter than the controller's own bound
	maxAuditTold = 4 << 10
)

// AuditLink carries a bastion's audit records to its controller, over one connection that stays.
type AuditLink struct {
	client    *Client
	transport *http.Transport
}

// AuditLink shows the certificate that pair returns when it connects.
func (c *Client) AuditLink(pair func() tls.Certificate) *AuditLink {
	config := c.tls.Clone()
	config.NextProtos = []string{"http/1.1"}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		p := pair()
		return &p, nil
	}
	return &AuditLink{client: c, transport: &http.Transport{
		DialContext: c.dial, TLSClientConfig: config, TLSHandshakeTimeout: DialTimeout, DisableCompression: true,
		MaxConnsPerHost: 2, IdleConnTimeout: auditIdle, MaxResponseHeaderBytes: 8 << 10,
	}}
}

// Renewed makes the next batch show the new certificate.
func (l *AuditLink) Renewed() { l.transport.CloseIdleConnections() }

// Send brings one batch, as it is, and returns the controller's answer, as it is.
func (l *AuditLink) Send(ctx context.Context, batch []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, AuditTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.client.address+PathAudit, bytes.NewReader(batch))
	if err != nil {
		return 0, nil, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := l.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, fmt.Errorf("bringing audit records to the controller: %w", err)
	}
	defer res.Body.Close()
	answer, err = ReadBody(res.Body, maxAuditTold)
	if err == nil && res.StatusCode == http.StatusForbidden {
		l.Renewed() // the certificate on this connection may be the reason
	}
	return res.StatusCode, answer, err
}
