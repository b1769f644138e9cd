// Package delivery brings a bastion's alerts to a webhook and to a program. It runs in a process of its own, bastion-alerts: the bastion
// itself needs no way out for it and can start nothing.
//
// Each place has a queue and a goroutine of its own, so that one that does not answer holds up nobody else. What cannot be delivered
// is tried again, ever more seldom, and given up at a bound; what does not fit the queue is dropped, and said to be.
package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"mayfly/bastion/alert"
)

// Implementation constants of delivering.
const (
	maxQueue  = 256
	maxTries  = 8
	firstWait = time.Second
	longWait  = time.Minute
	lastWords = 10 * time.Second // for what still waits when the bastion has ended
)

// errRefused is an answer that another try will not change.
var errRefused = errors.New("refused for good")

// place is where alerts go.
type place struct {
	name    string
	deliver func(ctx context.Context, a alert.Alert, line []byte) error
	queue   chan alert.Alert
}

// Serve reads settings and alerts from the bastion until it ends, delivers them, and writes a receipt for each and place.
func Serve(ctx context.Context, conn io.ReadWriter, log *slog.Logger) error {
	in := bufio.NewReaderSize(conn, alert.MaxLine+1)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("reading settings: %w", err)
	}
	settings, err := alert.ParseSettings(line)
	if err != nil {
		return err
	}
	var places []*place
	if settings.Webhook != "" {
		hook, err := newWebhook(settings)
		if err != nil {
			return err
		}
		places = append(places, &place{name: "webhook", deliver: hook.deliver, queue: make(chan alert.Alert, maxQueue)})
	}
	if settings.Exec != "" {
		if err := checkProgram(settings.Exec); err != nil {
			return err
		}
		places = append(places, &place{name: "exec", deliver: program(settings.Exec).deliver, queue: make(chan alert.Alert, maxQueue)})
	}
	if _, err := io.WriteString(conn, alert.Ready); err != nil {
		return fmt.Errorf("answering the bastion: %w", err)
	}
	return serve(ctx, in, conn, places, log)
}

func serve(ctx context.Context, in *bufio.Reader, out io.Writer, places []*place, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	receipt := func(a alert.Alert, p *place, outcome string) {
		mu.Lock()
		defer mu.Unlock()
		if _, err := out.Write(alert.Receipt{Kind: a.Kind, To: p.name, Outcome: outcome}.Marshal()); err != nil {
			log.Debug("the bastion does not hear", "error", err)
		}
	}
	var workers sync.WaitGroup
	for _, p := range places {
		workers.Go(func() {
			for a := range p.queue {
				if err := p.try(ctx, a); err != nil {
					log.Error("an alert was given up", "to", p.name, "kind", a.Kind, "subject", a.Subject, "error", err)
					receipt(a, p, alert.Failed)
				} else {
					receipt(a, p, alert.Sent)
				}
			}
		})
	}
	err := read(in, func(a alert.Alert) {
		for _, p := range places {
			select {
			case p.queue <- a:
			default:
				receipt(a, p, alert.Dropped)
			}
		}
	})
	for _, p := range places {
		close(p.queue)
	}
	defer time.AfterFunc(lastWords, cancel).Stop()
	workers.Wait()
	return err
}

func read(in *bufio.Reader, take func(alert.Alert)) error {
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading alerts: %w", err)
		}
		a, err := alert.Parse(line)
		if err != nil {
			return err
		}
		take(a)
	}
}

// try delivers an alert, again and again up to the bound.
func (p *place) try(ctx context.Context, a alert.Alert) error {
	line, err := a.Marshal()
	if err != nil {
		return err
	}
	wait := firstWait
	for n := 1; ; n++ {
		err := p.deliver(ctx, a, line)
		if err == nil {
			return nil
		}
		if n == maxTries || errors.Is(err, errRefused) {
			return fmt.Errorf("try %d: %w", n, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
		wait = min(2*wait, longWait)
	}
}
