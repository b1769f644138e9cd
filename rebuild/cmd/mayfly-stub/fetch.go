package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

// Bounds of the network.
const (
	dialTimeout   = 5 * time.Second
	headerTimeout = 10 * time.Second
	idleTimeout   = 20 * time.Second // without a byte
	firstWait     = 250 * time.Millisecond
	longestWait   = 8 * time.Second
	maxTries      = 12
)

// fetchRelease fetches the statement that the ticket names, and believes it or refuses it.
func (b *boot) fetchRelease(ctx context.Context) error {
	data, err := b.fetchSmall(ctx, release.StatementFile, release.MaxStatement)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != b.ticket.Release {
		return refusef(notTicketed, "the statement's SHA-256 is %x, the ticket names %s", sum, b.ticket.Release)
	}
	sigs, err := b.fetchSmall(ctx, release.SignaturesFile, trust.MaxSignatureBytes)
	if err != nil {
		return err
	}
	if b.statement, err = release.Verify(b.trust, data, sigs, time.Now()); err != nil {
		return err
	}
	b.statementData = data
	return nil
}

func (b *boot) fetchSmall(ctx context.Context, name string, limit int64) ([]byte, error) {
	var out bytes.Buffer
	err := b.fetch(ctx, name, func(body io.Reader) error {
		out.Reset()
		n, err := io.Copy(&out, io.LimitReader(body, limit+1))
		if err == nil && n > limit {
			return refusef(fetchOversize, "more than %d bytes", limit)
		}
		return err
	})
	return out.Bytes(), err
}

// fetch gets a file of the release and lets use read it. It tries again, with growing waits, until the bound or the ticket's end, but
// not after what use refused.
func (b *boot) fetch(ctx context.Context, name string, use func(io.Reader) error) error {
	ctx, cancel := context.WithDeadline(ctx, b.ticket.NotAfter)
	defer cancel()
	wait := firstWait
	for try := 1; ; try++ {
		err := fetchOnce(ctx, b.ticket.Mirrors[0]+name, use)
		if err == nil {
			return nil
		}
		if final(err) {
			return fmt.Errorf("%s: %w", name, err)
		}
		if try == maxTries || ctx.Err() != nil {
			return refusef(fetchFailed, "%s: gave up after %d tries: %w", name, try, err)
		}
		b.say("retry %d: %s: %s", try, name, oneLine(err.Error()))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, longestWait)
	}
}

// client follows no redirect, uses no proxy and asks for no compression.
var client = &http.Client{
	Transport: &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		ResponseHeaderTimeout:  headerTimeout,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
		MaxIdleConnsPerHost:    1,
		ReadBufferSize:         64 << 10,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func fetchOnce(ctx context.Context, url string, use func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	idle := time.AfterFunc(idleTimeout, func() { cancel(fmt.Errorf("no byte for %s", idleTimeout)) })
	defer idle.Stop()
	err = use(&watched{r: res.Body, idle: idle})
	if cause := context.Cause(ctx); err != nil && cause != nil && !final(err) {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// watched pushes the idle timer forward with each byte that arrives.
type watched struct {
	r    io.Reader
	idle *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.idle.Reset(idleTimeout)
	}
	return n, err
}
