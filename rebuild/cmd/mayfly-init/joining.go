package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/rebuild/join"
)

// Bounds of joining and renewing.
const (
	joinAttempts    = 12
	firstJoinPause  = 500 * time.Millisecond
	maxJoinPause    = 10 * time.Second
	firstRenewPause = 2 * time.Second
	maxRenewPause   = time.Minute
	leastRenewWait  = 5 * time.Second
)

// joinController begins the life. What certainly did not use the ticket is tried again, a bounded number of times; an answer, or
// silence after the ticket was sent, is final: a second use would revoke what the first one got.
func joinController(ctx context.Context, c *join.Client, r join.Request) (join.Response, error) {
	pause := firstJoinPause
	for attempt := 1; ; attempt++ {
		res, err := c.Join(ctx, r)
		if err == nil {
			return res, nil
		}
		refused, isRefusal := join.IsRefusal(err)
		_, unused := errors.AsType[*join.Unused](err)
		switch {
		case isRefusal && refused.Reason != join.Busy:
			return join.Response{}, refuse(refused.Reason, "%s", refused.Detail)
		case !isRefusal && !unused:
			return join.Response{}, refuse(codeJoin, "%w", err)
		case attempt >= joinAttempts:
			return join.Response{}, refuse(codeJoin, "after %d tries: %w", attempt, err)
		}
		if !sleep(ctx, jitter(pause)) {
			return join.Response{}, refuse(codeJoin, "%w", ctx.Err())
		}
		pause = min(2*pause, maxJoinPause)
	}
}

// askController asks what the TPM has to answer. Nothing is used up by that, so that everything but a refusal is tried again.
func askController(ctx context.Context, c *join.Client, r join.ChallengeRequest) (join.Challenge, error) {
	pause := firstJoinPause
	for attempt := 1; ; attempt++ {
		res, err := c.Challenge(ctx, r)
		if err == nil {
			return res, nil
		}
		refused, isRefusal := join.IsRefusal(err)
		switch {
		case isRefusal && refused.Reason != join.Busy && refused.Reason != join.ControllerFailed:
			return join.Challenge{}, refuse(refused.Reason, "%s", refused.Detail)
		case attempt >= joinAttempts:
			return join.Challenge{}, refuse(codeJoin, "after %d tries: %w", attempt, err)
		}
		if !sleep(ctx, jitter(pause)) {
			return join.Challenge{}, refuse(codeJoin, "%w", ctx.Err())
		}
		pause = min(2*pause, maxJoinPause)
	}
}

// jitter spreads machines that were booted together: between three quarters and five quarters of d.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// renewAt is when certificates that were got at got and end at end should be renewed: half-way, or at the deadline's latest.
func renewAt(got, end time.Time) time.Time {
	half := got.Add(end.Sub(got) / 2)
	if least := got.Add(leastRenewWait); half.Before(least) {
		return least
	}
	return half
}

// renew asks for fresh certificates for the same keys.
func renew(ctx context.Context, c *join.Client, k *keys, pair tls.Certificate, chain []byte) (join.Certificates, error) {
	return c.Renew(ctx, pair, join.RenewRequest{
		CSR:     k.csr,
		HostKey: k.host,
		Current: chain,
		Proof:   ed25519.Sign(k.tls, join.RenewMessage(k.csr, k.host)),
	})
}

// checkCertificates refuses an answer that is not for this machine's keys.
func checkCertificates(k *keys, c join.Certificates) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(c.TLS, k.tlsPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the TLS certificate that came: %w", err)
	}
	if err := hostCertificateOf(k.host, c.Host); err != nil {
		return tls.Certificate{}, fmt.Errorf("the host certificate that came: %w", err)
	}
	return pair, nil
}

// hostCertificateOf wants a host certificate for this key.
func hostCertificateOf(hostKey, certificate string) error {
	key, err := join.HostKey(hostKey)
	if err != nil {
		return err
	}
	parsed, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(certificate))
	if err != nil {
		return fmt.Errorf("parsing: %w", err)
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok || len(rest) != 0 || cert.CertType != ssh.HostCert || !bytes.Equal(cert.Key.Marshal(), key.Marshal()) {
		return fmt.Errorf("it is no host certificate for this key")
	}
	return nil
}

// report tells the controller why the machine does not go on.
func report(ctx context.Context, p *papers, err error) error {
	c, cerr := join.NewClient(p.ticket)
	if cerr != nil {
		return cerr
	}
	reason, detail := code(err)
	return c.Report(ctx, join.Report{Ticket: p.data, Signature: p.sig, Stage: "init", Reason: reason, Detail: clip(detail, join.MaxDetail)})
}

// clip cuts s to at most n bytes of ASCII.
func clip(s string, n int) string {
	b := make([]byte, 0, min(len(s), n))
	for _, c := range []byte(s) {
		if len(b) == n {
			break
		}
		if c < ' ' || c > '~' {
			c = ' '
		}
		b = append(b, c)
	}
	return string(b)
}
