package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// maxDrift is how far the machine's clock may be from what witnesses say before it is set.
const maxDrift = 2 * time.Second

// clock settles what time it is, and then whether the ticket may still be used. The witnesses say so, to a question that nobody could foresee;
// where the trust policy has nobody to ask, which it can in a test fleet only, the machine's own clock counts. A time that is earlier than the
// image is refused: with it, nothing that has expired would be noticed.
func (b *boot) clock(ctx context.Context) error {
	if b.trust.WitnessThreshold > 0 || !b.trust.Test {
		if err := b.askTime(ctx); err != nil {
			return err
		}
	}
	built, err := imageTime()
	if err != nil {
		return err
	}
	if now := time.Now(); now.Before(built) {
		return refusef(clockBehind, "it is %s, the image is of %s", now.UTC().Format(time.RFC3339), built.UTC().Format(time.RFC3339))
	}
	return ticketTime(b.ticket, time.Now())
}

// imageTime is when the image's inputs were locked.
func imageTime() (time.Time, error) {
	data, err := readSmall(release.StubEpochPath)
	if err != nil {
		return time.Time{}, err
	}
	epoch, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading %s: %w", release.StubEpochPath, err)
	}
	return time.Unix(epoch, 0), nil
}

// ticketTime refuses a ticket whose time to join, or whose life, is over.
func ticketTime(t *ticket.Ticket, now time.Time) error {
	switch {
	case now.After(t.NotAfter):
		return refusef(ticket.Expired, "the ticket for %q ended at %s, it is %s", t.Server, t.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !now.Before(t.Deadline):
		return refusef(ticket.Expired, "the life of %q ended at %s, it is %s", t.Server, t.Deadline.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// setClock makes it this time, unless it is nearly so already.
func setClock(now time.Time) error {
	if time.Since(now).Abs() <= maxDrift {
		return nil
	}
	tv := unix.NsecToTimeval(now.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("setting the clock: %w", err)
	}
	return nil
}

// made is when a ticket was made at the earliest, as its signer saw it: no honest clock is behind it.
func made(t *ticket.Ticket) time.Time {
	return t.Deadline.Add(-time.Duration(t.MaxAge) * time.Second)
}
