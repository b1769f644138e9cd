package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"mayfly/internal/inclusion"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

// Bounds of one answer. An honest mirror is far from them; one that wants to keep a machine busy gets no further.
const (
	dialTimeout   = 5 * time.Second
	headerTimeout = 10 * time.Second
	maxHeaders    = 16 << 10
	paceWindow    = 10 * time.Second // in each of these, until the answer ends,
	paceBytes     = 640 << 10        // so much has to arrive, and of a file of known size as much as brings the whole of it in the mirror's turn
)

// fetchRelease fetches the statement that the ticket names, and believes it or refuses it.
func (b *boot) fetchRelease(ctx context.Context) error {
	b.began = time.Now()
	data, err := b.fetchSmall(ctx, release.StatementFile, release.MaxStatement, func(data []byte) error {
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != b.ticket.Release {
			return refusef(notTicketed, "the statement's SHA-256 is %x, the ticket names %s", sum, b.ticket.Release)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = b.fetchSmall(ctx, release.SignaturesFile, trust.MaxSignatureBytes, func(sigs []byte) (err error) {
		b.statement, err = release.Open(b.trust, data, sigs)
		return err
	})
	if err != nil {
		return err
	}
	b.statementData = data
	if err := b.judge(ctx); err != nil {
		return err
	}
	return b.checkLedger(ctx)
}

// checkLedger refuses a release that the fleet's public ledger does not show, as its witnesses saw it.
func (b *boot) checkLedger(ctx context.Context) error {
	if len(b.trust.LedgerKeys) == 0 {
		return release.CheckProof(b.trust, b.statementData, nil) // which only a test fleet may leave out
	}
	_, err := b.fetchSmall(ctx, release.ProofFile, inclusion.MaxProof, func(proof []byte) error {
		return release.CheckProof(b.trust, b.statementData, proof)
	})
	if reasonOf(err) == fetchFailed && b.mirrors.haveNot() {
		return refusef(release.Unlogged, "there is no proof that the ledger holds it: %w", err)
	}
	return err
}

// fetchSmall gets a file that is read whole. What check refuses counts against the mirror that served it.
func (b *boot) fetchSmall(ctx context.Context, name string, limit int64, check func([]byte) error) ([]byte, error) {
	var out bytes.Buffer
	err := b.fetch(ctx, name, 0, func(body io.Reader) error {
		out.Reset()
		n, err := io.Copy(&out, io.LimitReader(body, limit+1))
		if err == nil && n > limit {
			err = refusef(fetchOversize, "more than %d bytes", limit)
		}
		if err == nil {
			err = check(out.Bytes())
		}
		return err
	})
	return out.Bytes(), err
}

// absent is an answer that says that there is nothing to be had here.
type absent struct{ status int }

func (a *absent) Error() string { return fmt.Sprintf("status %d", a.status) }

var errSlow = fmt.Errorf("less than %d bytes in %s", paceBytes, paceWindow)

var errTurn = errors.New("its turn was over")

// turn is what one mirror has: a time, and how many bytes have to come in it (0: any).
type turn struct {
	size int64
	time time.Duration
}

// get asks once and lets use read the answer.
func get(ctx context.Context, client *http.Client, url string, mine turn, use func(io.Reader) error) error {
	ctx, over := context.WithTimeoutCause(ctx, mine.time, errTurn)
	defer over()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusOK:
	case res.StatusCode >= 300 && res.StatusCode < 500 && res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusRequestTimeout:
		return &absent{res.StatusCode}
	default:
		return fmt.Errorf("status %d", res.StatusCode)
	}
	p := &paced{r: res.Body}
	stop := p.watch(mine, began, cancel)
	defer stop()
	err = use(p)
	if cause := context.Cause(ctx); err != nil && cause != nil && reasonOf(err) == bootFailed {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// paced counts what arrives.
type paced struct {
	r io.Reader
	n atomic.Int64
}

// watch calls slow once less than paceBytes came in a paceWindow, or less in all than would bring a file of this size within the mirror's turn.
func (p *paced) watch(mine turn, began time.Time, slow func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		tick := time.NewTicker(paceWindow)
		defer tick.Stop()
		for last := int64(0); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now := p.n.Load()
			switch took := time.Since(began); {
			case now-last < paceBytes:
				slow(errSlow)
				return
			case float64(now) < float64(mine.size)*min(1, took.Seconds()/mine.time.Seconds()):
				slow(fmt.Errorf("%w: %d of %d bytes after %s, of %s", errTurn, now, mine.size, took.Round(time.Second), mine.time.Round(time.Second)))
				return
			}
			last = now
		}
	}()
	return cancel
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n.Add(int64(n))
	return n, err
}

// mendable says whether a refusal is about what one mirror served, so that another may serve the right bytes. What all of them would
// serve alike is refused at once.
func mendable(err error) bool {
	switch reasonOf(err) {
	case fetchOversize, notTicketed, release.Unlogged, release.LogSplit, release.LogMalformed, release.Unsigned, release.Unbuilt, release.PartAltered, release.PartOversize, release.PartTruncated:
		return true
	}
	return false
}

// isAbsent says whether asking the same mirror again for the same file is of no use.
func isAbsent(err error) bool {
	_, ok := errors.AsType[*absent](err)
	return ok
}
