package main

import (
	"context"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"time"

	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// Bounds of reporting: a controller that restarts, or cannot be reached for a while, hears of it all the same.
const (
	reportFirst   = 2 * time.Second // between the first two tries; twice as long each time,
	reportLongest = 2 * time.Minute // up to this
	reportFor     = 6 * time.Hour
)

// report tells the ticket's controller why the boot stopped.
func (b *boot) report(reason, detail string) {
	client, err := join.NewClient(b.ticket)
	if err != nil {
		b.say("report: %v", err)
		return
	}
	r := join.Report{Ticket: b.ticketData, Signature: b.ticketSig, Stage: "stub", Reason: reason, Detail: detail[:min(len(detail), join.MaxDetail)]}
	b.keepTelling(func() error { return tell(client, b.ticket, r) })
}

// keepTelling tries until the report is taken, the controller wants none of it, or hours are over.
func (b *boot) keepTelling(try func() error) {
	began := time.Now()
	for wait := reportFirst; ; wait = min(2*wait, reportLongest) {
		err := try()
		if err == nil {
			b.say("reported")
			return
		}
		b.say("report: %s", oneLine(err.Error()))
		if refused, ok := errors.AsType[*join.Refusal](err); ok && refused.Reason != join.Busy && refused.Reason != join.ControllerFailed {
			return
		}
		if time.Since(began) >= reportFor {
			return
		}
		time.Sleep(wait/2 + rand.N(wait/2)) // machines that began together do not go on together
	}
}

// tell sends a report once. Where no witness said what time it is, the machine's clock may be behind or ahead by years, and the controller's
// certificate looks as if it were over, or still to come: then it is judged by a time at which the ticket was good.
func tell(client *join.Client, t *ticket.Ticket, r join.Report) error {
	send := func(client *join.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), join.RequestTimeout)
		defer cancel()
		return client.Report(ctx, r)
	}
	err := send(client)
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); !ok || bad.Reason != x509.Expired {
		return err
	}
	return send(client.At(func() time.Time { return duringTicket(t, time.Now()) }))
}

// duringTicket is the time at which a ticket was good that is nearest to now.
func duringTicket(t *ticket.Ticket, now time.Time) time.Time {
	switch earliest := made(t); {
	case now.After(t.NotAfter):
		return t.NotAfter
	case now.Before(earliest):
		return earliest
	}
	return now
}
