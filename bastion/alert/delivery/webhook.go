package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"mayfly/bastion/alert"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Implementation constants of a webhook.
const (
	hookLimit  = 10 * time.Second
	maxHeaders = 16 << 10
	maxAnswer  = 4 << 10 // bytes that are read, and thrown away
	maxToken   = 4 << 10
	maxCA      = 1 << 20
)

// webhook posts alerts to a URL.
type webhook struct {
	url, token string
	client     *http.Client
}

func newWebhook(s alert.Settings) (*webhook, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		data, err := os.ReadFile(s.CA)
		if err == nil && len(data) > maxCA {
			err = fmt.Errorf("larger than %d bytes", maxCA)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the webhook's CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("reading the webhook's CA %s: no certificate", s.CA)
		}
	}
	h := &webhook{url: s.Webhook, token: s.Token, client: &http.Client{
		Timeout: hookLimit,
		Transport: &http.Transport{TLSClientConfig: config, MaxResponseHeaderBytes: maxHeaders, DisableKeepAlives: true, ForceAttemptHTTP2: true,
			DialContext: (&net.Dialer{}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	_, err := h.secret()
	return h, err
}

// secret is read for each alert: it may change.
func (h *webhook) secret() (string, error) {
	if h.token == "" {
		return "", nil
	}
	data, err := durable.ReadSecret(h.token)
	if err != nil {
		return "", hint.New(fmt.Errorf("reading the webhook's token: %w", err), "chmod 600 %s", h.token)
	}
	text := strings.TrimSpace(string(data))
	if text == "" || len(text) > maxToken || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("reading the webhook's token %s: want one word", h.token)
	}
	return text, nil
}

func (h *webhook) deliver(ctx context.Context, _ alert.Alert, line []byte) (err error) {
	token, err := h.secret()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(line))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "mayfly-bastion-alerts")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return err
	}
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code/100 == 5:
		return fmt.Errorf("the webhook answered %d", code)
	default:
		return fmt.Errorf("the webhook answered %d: %w", code, errRefused)
	}
}
