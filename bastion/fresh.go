package bastion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

// Implementation constants of asking witnesses.
const (
	askLimit    = 2 * time.Second        // for all of them together: a reload waits as long
	askSettle   = 150 * time.Millisecond // for the others, once enough have confirmed: one of them may know better
	askEvery    = time.Minute
	askAgain    = 5 * time.Second // when they did not confirm
	maxAskers   = trust.MaxWitnesses
	maxHeaders  = 8 << 10
	freshDetail = 256

	// Two signed files of one version have no honest cause, and no grace, once so many witnesses say so: one alone could keep everybody out. That
	// a newer version is out is no such proof: it is on its way here each time one is published.
	forkWitnesses = 2
)

// confirmation is what witnesses have said of one bundle file, and until when that is good.
type confirmation struct {
	trust   *trust.Trust
	urls    []string
	version uint64
	sum     string
	grace   time.Duration
	ask     func(ctx context.Context, q witness.Question, enough func([][]byte) bool) [][]byte

	broken string // why the policy is not believed any more, whoever confirms it; empty: it is

	mu   sync.Mutex
	at   time.Time // when the last question that was confirmed was asked
	last witness.Verdict
}

// newConfirmation asks the witnesses about a bundle for the first time. Without enough of them the bundle does not load.
func newConfirmation(t *trust.Trust, urls []string, version uint64, sum string, grace time.Duration, now time.Time) (*confirmation, error) {
	c := &confirmation{trust: t, urls: urls, version: version, sum: sum, grace: grace,
		ask: func(ctx context.Context, q witness.Question, enough func([][]byte) bool) [][]byte {
			return askWitnesses(ctx, urls, q, enough)
		}}
	if t.WitnessThreshold > len(urls) {
		return nil, hint.New(fmt.Errorf("%d witnesses must confirm a policy, and the configuration names %d", t.WitnessThreshold, len(urls)),
			`witnesses = ["http://ADDRESS:PORT"] says where they are`)
	}
	if v := c.renew(context.Background(), now); !v.Fresh {
		return nil, hint.New(v, "%s", witnessHint(v.Reason))
	}
	return c, nil
}

func witnessHint(reason string) string {
	switch reason {
	case witness.Frozen:
		return "bring the newer bundle here: fleetctl policy publish had it confirmed, and this one was held back"
	case witness.Forked:
		return "two bundles of one version are signed: find out who made the other, raise the version, and have it signed again"
	}
	return "fleetctl policy publish brings the bundle to the witnesses; they must be reachable from here, with clocks that agree"
}

// needed reports whether there is anybody to ask.
func (c *confirmation) needed() bool { return c.trust.WitnessThreshold > 0 }

// renew asks again, and moves the time from which the grace counts if enough confirm.
func (c *confirmation) renew(ctx context.Context, now time.Time) witness.Verdict {
	var answers [][]byte
	q := witness.Ask(c.trust.Fleet, witness.SubjectPolicy)
	judge := func(answers [][]byte) witness.Verdict {
		return witness.Judge(c.trust, q, c.version, c.sum, answers, now)
	}
	if c.needed() {
		ctx, cancel := context.WithTimeout(ctx, askLimit)
		answers = c.ask(ctx, q, func(answers [][]byte) bool { return judge(answers).Fresh })
		cancel()
	}
	v := judge(answers)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = v
	if v.Fresh {
		c.at = now
	}
	return v
}

// state is the last verdict, and when the last confirmation ends.
func (c *confirmation) state() (last witness.Verdict, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.at.Add(c.grace)
}

// opens decides whether a session or a target may begin. What is open goes on: only the policy's own expiry ends that.
func (c *confirmation) opens(now time.Time) policies.Verdict {
	if c == nil {
		return policies.Verdict{Reason: witnessMissing, Detail: "nobody confirmed the policy"}
	}
	if c.broken != "" {
		return policies.Verdict{Reason: policyDistrusted, Detail: c.broken}
	}
	last, until := c.state()
	if len(last.Others) >= forkWitnesses {
		return policies.Verdict{Reason: policyForked, Detail: fmt.Sprintf("policy %d: %s know another file of it", c.version, strings.Join(last.Others, ", "))}
	}
	if !c.needed() || now.Before(until) {
		return policies.Verdict{Allow: true, Reason: policies.Allowed}
	}
	why := witnessMissing
	if !last.Fresh && last.Reason != "" {
		why = policies.Reason(last.Reason)
	}
	return policies.Verdict{Reason: why, Detail: fmt.Sprintf("policy %d was last confirmed %s ago: %s", c.version, now.Sub(until.Add(-c.grace)).Round(time.Second), last.Detail)}
}

// FreshStatus is what witnesses say of the policy in force.
type FreshStatus struct {
	Threshold int        `json:"threshold"`       // witnesses that must confirm it; 0: nobody is asked, in a test fleet
	Outcome   string     `json:"outcome"`         // "confirmed", or the reason code of why not
	Witnesses []string   `json:"witnesses"`       // who confirmed the last time
	Until     *time.Time `json:"until,omitempty"` // sessions begin until then
}

func (c *confirmation) status() FreshStatus {
	if c == nil {
		return FreshStatus{Outcome: witness.Missing, Witnesses: []string{}}
	}
	last, until := c.state()
	s := FreshStatus{Threshold: c.trust.WitnessThreshold, Outcome: last.Reason, Witnesses: listed(last.Witnesses)}
	if c.broken != "" {
		s.Outcome = string(policyDistrusted)
	} else if c.needed() {
		until = until.UTC()
		s.Until = &until
	}
	return s
}

// freshRecord says that witnesses began, or ceased, to confirm the policy in force.
type freshRecord struct {
	Outcome   string    `json:"outcome"` // "confirmed", or the reason code of why not
	Version   uint64    `json:"version"`
	Witnesses []string  `json:"witnesses"` // who confirmed
	Until     time.Time `json:"until"`     // sessions begin until then
	Detail    string    `json:"detail,omitempty"`
}

// keepFresh asks the witnesses about the policy in force again and again until ctx ends.
func (s *Server) keepFresh(ctx context.Context) {
	said := witness.Confirmed // the first ruling was confirmed when it was loaded
	for wait := askEvery; ; {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = askEvery
		c := s.ruling.Load().fresh
		if !c.needed() {
			continue
		}
		v := c.renew(ctx, time.Now())
		if ctx.Err() != nil {
			return
		}
		if !v.Fresh {
			wait = askAgain
		}
		if v.Reason == said {
			continue
		}
		said = v.Reason
		_, until := c.state()
		if v.Fresh {
			s.log.Info("witnesses confirm the policy again", "version", c.version)
		} else {
			s.log.Error("witnesses do not confirm the policy in force", "version", c.version, "reason", v.Reason, "until", until, "detail", v.Detail, "hint", witnessHint(v.Reason))
		}
		record := freshRecord{Outcome: v.Reason, Version: c.version, Witnesses: listed(v.Witnesses), Until: until.UTC(), Detail: escape(v.Detail, freshDetail)}
		if !v.Fresh {
			s.notify(noticeFresh, record)
		}
		s.append(eventFresh, record)
	}
}

// askWitnesses asks all at once, and returns what came when all have answered, when ctx ends, or a moment after it was enough.
func askWitnesses(ctx context.Context, urls []string, q witness.Question, enough func([][]byte) bool) [][]byte {
	body, err := canonical.Marshal(q)
	if err != nil {
		panic("bastion: internal error: a question that cannot be written: " + err.Error())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeaders,
			DialContext: (&net.Dialer{}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	urls = urls[:min(len(urls), maxAskers)]
	came := make(chan []byte, len(urls))
	for _, url := range urls {
		go func() {
			answer, err := askOne(ctx, client, url, body)
			if err != nil {
				answer = nil // silence and a lie weigh the same
			}
			came <- answer
		}()
	}
	var answers [][]byte
	var settled <-chan time.Time
	for range urls {
		select {
		case answer := <-came:
			if answer != nil {
				answers = append(answers, answer)
			}
		case <-settled:
			return answers
		case <-ctx.Done():
			return answers
		}
		if settled == nil && enough(answers) {
			settled = time.After(askSettle)
		}
	}
	return answers
}

func askOne(ctx context.Context, client *http.Client, url string, question []byte) (answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+witness.PathAnswer, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, witness.MaxAnswer+1))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || len(data) > witness.MaxAnswer {
		return nil, fmt.Errorf("%s from %s", resp.Status, url)
	}
	return data, nil
}
