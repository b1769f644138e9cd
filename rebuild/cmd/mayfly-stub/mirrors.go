package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"mayfly/rebuild/ticket"
)

// Bounds of trying again. One round asks each mirror that is left once.
const (
	maxRounds   = 12
	firstWait   = 250 * time.Millisecond
	longestWait = 8 * time.Second
	maxHope     = 3
	maxVerdict  = 400 // bytes, of what is said of the mirrors in the end: a report has room for all of them
)

// mirrors are the places of the release's files, in the ticket's order. The one that answered last is asked first.
type mirrors struct {
	client *http.Client
	all    []*mirror
	at     int
}

type mirror struct {
	url  string
	lied error // it served what nobody signed: it is asked no more
	last error // why it did not serve the present file
	left bool  // it does not have the present file
	slow bool  // it would not have brought the present file in its turn
	hope int   // how many more failures with the present file leave it one that may serve it
}

// newMirrors returns the ticket's mirrors. An HTTPS mirror shows a certificate of the ticket's CA for its address; what is fetched is
// believed by its hash, with HTTPS or without.
func newMirrors(t *ticket.Ticket) (*mirrors, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(t.CA)) {
		return nil, errors.New("the ticket's ca is no certificate")
	}
	m := &mirrors{client: &http.Client{
		Transport: &http.Transport{ // no proxy, no compression, no HTTP/2
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool},
			TLSHandshakeTimeout:    headerTimeout,
			ResponseHeaderTimeout:  headerTimeout,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaders,
			MaxIdleConnsPerHost:    1,
			ReadBufferSize:         64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, url := range t.Mirrors {
		m.all = append(m.all, &mirror{url: url})
	}
	return m, nil
}

// fetch gets a file of the release from the first mirror that serves it, and lets use read it. A mirror that serves other bytes than were
// signed is left for good, one that does not have the file for this file; over the others it goes round, with growing waits between the
// rounds, until the bound or the ticket's end. Each mirror has its turn of the time that the ticket has left, so that no slow one takes
// that of an honest one. What use refuses on grounds that no mirror can mend is final. A size of 0 is not known.
func (b *boot) fetch(ctx context.Context, name string, size int64, use func(io.Reader) error) error {
	ctx, cancel := context.WithDeadline(ctx, b.ticket.NotAfter)
	defer cancel()
	m := b.mirrors
	for _, one := range m.all {
		one.last, one.left, one.slow, one.hope = one.lied, one.lied != nil, false, maxHope
	}
	for round := 1; ; round++ {
		remaining := 0
		for range m.all {
			one := m.all[m.at]
			if !one.left && ctx.Err() == nil {
				err := get(ctx, m.client, one.url+name, m.turn(one, size, time.Until(b.ticket.NotAfter)), use)
				if err == nil {
					return nil
				}
				if reasonOf(err) != bootFailed && !mendable(err) {
					return fmt.Errorf("%s: %w", name, err)
				}
				b.say("mirror %d: %s: %s", m.at+1, name, oneLine(err.Error()))
				one.note(err)
				if !one.left {
					remaining++
				}
			}
			m.at = (m.at + 1) % len(m.all)
		}
		if remaining == 0 || round == maxRounds || ctx.Err() != nil {
			return m.verdict(name)
		}
		wait := backoff(round, rand.Float64())
		b.say("retry %d: %s: in %s", round, name, wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// turn is what a mirror may have of the time that is left. One more than those who may yet serve the file have a part of it, so that
// something is left for what comes after the last. Where all others were too slow, or failed again and again, it has all of it; and where
// there are none, nobody gains if it is given up before.
func (m *mirrors) turn(one *mirror, size int64, left time.Duration) turn {
	others, hopeful := 0, 0
	for _, other := range m.all {
		if other == one || other.left {
			continue
		}
		others++
		if !other.slow && other.hope > 0 {
			hopeful++
		}
	}
	switch {
	case others == 0:
		return turn{time: left}
	case hopeful == 0:
		return turn{size, left}
	}
	return turn{size, left / time.Duration(hopeful+2)}
}

// note remembers why a mirror did not serve the present file.
func (m *mirror) note(err error) {
	m.last = err
	m.hope--
	switch {
	case mendable(err):
		m.lied, m.left = err, true
	case isAbsent(err):
		m.left = true
	case errors.Is(err, errTurn):
		m.slow = true
	}
}

// verdict is why no mirror served the file: the one reason that all of them gave, or that it could not be fetched. It names each mirror.
func (m *mirrors) verdict(name string) error {
	var texts []string
	each := maxVerdict / len(m.all)
	reason := ""
	for i, one := range m.all {
		err := one.last
		if err == nil {
			err = errors.New("not asked: the ticket's time was over")
		}
		texts = append(texts, fmt.Sprintf("mirror %d (%s): %s", i+1, hostOf(one.url), firstOf(oneLine(err.Error()), each)))
		this := reasonOf(err)
		switch {
		case !mendable(err):
			reason = fetchFailed
		case reason == "" || reason == this:
			reason = this
		default:
			reason = fetchFailed
		}
	}
	return refusef(reason, "%s: %s", name, strings.Join(texts, "; "))
}

// haveNot says that every mirror answered that it does not have the present file.
func (m *mirrors) haveNot() bool {
	return !slices.ContainsFunc(m.all, func(one *mirror) bool { return !isAbsent(one.last) })
}

// hostOf is the ADDRESS:PORT of a mirror, which is what a reader of a report wants of it.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// backoff is how long to wait after a round: twice as long each time, up to a bound, of which the second half is by chance, so that
// machines that began together do not go on together.
func backoff(round int, chance float64) time.Duration {
	wait := longestWait
	if round < 16 {
		wait = min(longestWait, firstWait<<(round-1))
	}
	return wait/2 + time.Duration(chance*float64(wait/2))
}
