package power

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"mayfly/internal/sealed"
	"mayfly/inventory"
)

// Bounds of the Redfish client.
const (
	redfishCall   = 20 * time.Second // one command, to the last byte of its answer
	redfishEnd    = 5 * time.Second  // ending a session, whatever became of the rest
	maxRedfish    = 1 << 20
	maxJSONDepth  = 32
	maxPrintable  = 200
	maxTokenBytes = 1 << 10
	maxPath       = 512
)

// redfishClient sends single commands. It follows nothing, keeps nothing, and knows one host.
type redfishClient struct {
	base     string // "https://IP:PORT"
	user     string
	password func() (sealed.Secret, error)
	basic    bool
	ration   *ration
	http     *http.Client

	token, place string // of the session that is open
	lostBy       error  // why the last command had no answer
}

func newRedfishClient(p inventory.Power, password func() (sealed.Secret, error), r *ration) *redfishClient {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.Fingerprint != "" {
		config.InsecureSkipVerify = true // what is checked instead is all of the certificate
		config.VerifyConnection = func(s tls.ConnectionState) error {
			sum := sha256.Sum256(s.PeerCertificates[0].Raw)
			if got := hex.EncodeToString(sum[:]); got != p.Fingerprint {
				return failf(Certificate, "the certificate's fingerprint is %s", got)
			}
			return nil
		}
	} else {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(p.CA))
	}
	return &redfishClient{base: "https://" + p.Address, user: p.User, password: password, basic: p.Auth == inventory.AuthBasic, ration: r,
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				TLSClientConfig: config, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, MaxConnsPerHost: 1,
				DialContext:         (&net.Dialer{Timeout: redfishCall}).DialContext,
				TLSHandshakeTimeout: redfishCall, ForceAttemptHTTP2: false, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
			},
		}}
}

// open begins a session, unless one is open or none is needed.
func (c *redfishClient) open(ctx context.Context) error {
	if c.basic || c.token != "" {
		return nil
	}
	password, err := c.password()
	if err != nil {
		return err
	}
	res, err := c.call(ctx, http.MethodPost, redfishSessions, "", map[string]string{"UserName": c.user, "Password": password.Reveal()})
	if err != nil {
		return err
	}
	token, at := res.header.Get("X-Auth-Token"), res.header.Get("Location")
	if token == "" || len(token) > maxTokenBytes {
		return failf(Malformed, "the BMC opened a session and gave no token")
	}
	if u, err := url.Parse(at); err == nil && u.IsAbs() && u.Scheme+"://"+u.Host == c.base {
		at = u.Path
	}
	c.token, c.place = token, at
	return nil
}

// close ends the session. One that cannot be ended ends by itself; what was done in it counts.
func (c *redfishClient) close(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	if c.token == "" {
		return
	}
	if localPath.MatchString(c.place) && (c.lostBy == nil || Reason(c.lostBy) != Frozen) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), redfishEnd)
		defer cancel()
		_, _ = c.call(ctx, http.MethodDelete, c.place, "", nil)
	}
	c.token, c.place, c.lostBy = "", "", nil
}

func (c *redfishClient) get(ctx context.Context, path string, out any) error {
	res, err := c.call(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	if err := strictJSON(res.body); err != nil {
		return failf(Malformed, "GET %s: %w", printable(path), err)
	}
	if err := json.Unmarshal(res.body, out); err != nil {
		return failf(Malformed, "GET %s: %w", printable(path), err)
	}
	return nil
}

func (c *redfishClient) post(ctx context.Context, path string, in any) error {
	_, err := c.call(ctx, http.MethodPost, path, "", in)
	return err
}

func (c *redfishClient) patch(ctx context.Context, path, etag string, in any) error {
	_, err := c.call(ctx, http.MethodPatch, path, etag, in)
	return err
}

// call is one command and its whole answer.
func (c *redfishClient) call(ctx context.Context, method, path, etag string, in any) (redfishResponse, error) {
	var none redfishResponse
	if len(path) > maxPath || !localPath.MatchString(path) || strings.Contains(path, "/../") || strings.Contains(path, "/./") {
		return none, failf(Malformed, "the BMC names a resource %q, which is no path of its service", printable(path))
	}
	if ctx.Err() != nil && c.lostBy != nil {
		return none, c.lostBy // which is what took the time
	}
	if err := c.ration.take(ctx); err != nil {
		return none, err
	}
	c.lostBy = nil
	ctx, cancel := context.WithTimeout(ctx, redfishCall)
	defer cancel()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) { connected.Store(connected.Load() || err == nil) },
		GotConn:     func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return none, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return none, err
	}
	req.GetBody = nil // nothing is sent twice behind our back
	req.Header.Set("Accept", "application/json")
	req.Header.Set("OData-Version", "4.0")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if etag != "" && len(etag) < maxPrintable {
		req.Header.Set("If-Match", etag)
	}
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	} else if c.basic {
		password, err := c.password()
		if err != nil {
			return none, err
		}
		req.SetBasicAuth(c.user, password.Reveal())
	}
	what := method + " " + path
	res, err := c.http.Do(req)
	if err != nil {
		return none, c.lost(what, err, connected.Load())
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxRedfish+1))
	if err != nil {
		return none, c.lost(what, err, true)
	}
	if len(data) > maxRedfish {
		return none, failf(Oversize, "%s: an answer of more than %d bytes", what, maxRedfish)
	}
	return redfishResponse{res.StatusCode, res.Header, data}, judge(what, res.StatusCode)
}

// lost names what became of a command without an answer.
func (c *redfishClient) lost(what string, err error, connected bool) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		err = e.Err // without the address, which may hold more than is to be told
	}
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) {
		return failf(Certificate, "%s: %w", what, err)
	}
	f := transport(err, connected)
	c.lostBy = failf(f.Reason, "%s: %w", what, f.Err)
	return c.lostBy
}

// judge turns a status into a reason.
func judge(what string, status int) error {
	switch {
	case status >= 200 && status < 300:
		return nil
	case status >= 300 && status < 400:
		return failf(Redirected, "%s: status %d", what, status)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return failf(Denied, "%s: status %d", what, status)
	case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
		return failf(Busy, "%s: status %d", what, status)
	}
	return failf(Refused, "%s: status %d", what, status)
}

// strictJSON refuses what two readers could read in two ways: more than one value, a key twice, and depths that nobody needs.
func strictJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := strictValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func strictValue(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	d, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth >= maxJSONDepth {
		return errors.New("nested too deeply")
	}
	keys := map[string]bool{}
	for dec.More() {
		if d == '{' {
			k, err := dec.Token()
			if err != nil {
				return err
			}
			// Go's decoder takes a field by its name in any case: so twice is twice in any case.
			name := strings.ToLower(fmt.Sprint(k))
			if keys[name] {
				return fmt.Errorf("%q twice", printable(name))
			}
			keys[name] = true
		}
		if err := strictValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// secretPath are the digits of an offer's address, which is a secret: whoever a machine or BMC quotes it to. A part of it is hidden as well.
var secretPath = regexp.MustCompile(`(?i)[0-9a-f]{24,}`)

// printable is a text of others as it may be told.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	s = secretPath.ReplaceAllString(s, "[hidden]")
	return s[:min(len(s), maxPrintable)]
}
