package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"mayfly/internal/canonical"
	"mayfly/policies/witness"
)

// Bounds of asking witnesses.
const (
	askLimit   = 10 * time.Second       // for one round of all of them together
	askSettle  = 300 * time.Millisecond // for the others, once enough have answered: one of them may know better
	askRounds  = 6
	maxJudging = 3 // times that they are asked anew because too few knew the release
)

// answers are what witnesses said, to one question.
type answers struct {
	question witness.Question
	at       time.Time         // when they were all there
	by       map[string][]byte // the last one of each
}

func (a *answers) list() [][]byte { return slices.Collect(maps.Values(a.by)) }

// witnessClient asks for nothing but plain answers.
var witnessClient = &http.Client{
	Transport: &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		ResponseHeaderTimeout:  headerTimeout,
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeaders,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// askTime asks the ticket's witnesses, with a nonce of its own, until as many as the trust policy says have answered, and sets the clock by them.
func (b *boot) askTime(ctx context.Context) error {
	if need, have := b.trust.WitnessThreshold, len(b.ticket.Witnesses); need > have {
		return refusef(witness.Missing, "%d witnesses have to answer, and the ticket names %d", need, have)
	}
	b.answers.question = witness.Ask(b.trust.Fleet, witness.SubjectRelease)
	b.answers.by = map[string][]byte{}
	for round := 1; ; round++ {
		errs := b.askRound(ctx)
		if now, ok := witness.AgreedTime(b.trust, b.answers.question, b.answers.list()); ok {
			b.answers.at = time.Now()
			if drift := time.Until(now).Abs(); drift > maxDrift {
				b.say("the clock differs by %s from the witnesses'", drift.Round(time.Second))
			}
			return setClock(now)
		}
		if round == askRounds || ctx.Err() != nil {
			v := witness.JudgeRelease(b.trust, b.answers.question, 1, "", b.answers.list())
			return refusef(witness.Missing, "%d of %d witnesses answered: %s", len(b.answers.by), len(b.ticket.Witnesses), strings.Join(append(errs, v.Detail), "; "))
		}
		b.say("witnesses %d: %s", round, oneLine(strings.Join(errs, "; ")))
		select {
		case <-ctx.Done():
		case <-time.After(backoff(round, rand.Float64())):
		}
	}
}

// askRound asks all witnesses at once. It returns when all have answered, or a moment after enough have.
func (b *boot) askRound(ctx context.Context) (errs []string) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	question, err := canonical.Marshal(b.answers.question)
	if err != nil {
		return []string{err.Error()}
	}
	type answer struct {
		from string
		data []byte
		err  error
	}
	all := make(chan answer, len(b.ticket.Witnesses))
	for _, url := range b.ticket.Witnesses {
		go func() {
			data, err := askWitness(ctx, url, question)
			all <- answer{url, data, err}
		}()
	}
	var settled <-chan time.Time
	for range b.ticket.Witnesses {
		select {
		case a := <-all:
			if a.err != nil {
				errs = append(errs, fmt.Sprintf("%s: %v", hostOf(a.from), a.err))
				continue
			}
			b.answers.by[a.from] = a.data
			if _, ok := witness.AgreedTime(b.trust, b.answers.question, b.answers.list()); ok && settled == nil {
				settled = time.After(askSettle)
			}
		case <-settled:
			return errs
		}
	}
	return errs
}

func askWitness(ctx context.Context, url string, question []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+witness.PathAnswer, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	res, err := witnessClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, witness.MaxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", res.StatusCode)
	case len(data) > witness.MaxAnswer:
		return nil, errors.New("its answer is too long")
	}
	return data, nil
}

// judge refuses a release that witnesses do not confirm. A witness that has not heard of it yet may hear of it: then they are asked again.
func (b *boot) judge(ctx context.Context) error {
	for try := 1; ; try++ {
		v := witness.JudgeRelease(b.trust, b.answers.question, b.statement.Version, witness.Sum(b.statementData), b.answers.list())
		switch {
		case v.Fresh && v.Time.IsZero(): // a test fleet that asks nobody
			return b.statement.At(time.Now())
		case v.Fresh:
			if err := setClock(v.Time.Add(time.Since(b.answers.at))); err != nil {
				return err
			}
			b.say("release %d confirmed by %s", b.statement.Version, strings.Join(v.Witnesses, ", "))
			if err := ticketTime(b.ticket, time.Now()); err != nil {
				return err
			}
			return b.statement.At(time.Now())
		case v.Reason != witness.Missing || try == maxJudging || ctx.Err() != nil:
			return refusef(v.Reason, "%s", v.Error())
		}
		b.say("witnesses: %s", oneLine(v.Error()))
		select {
		case <-ctx.Done():
		case <-time.After(backoff(try+2, rand.Float64())):
		}
		if err := b.askTime(ctx); err != nil {
			return err
		}
	}
}
