package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"mayfly/rebuild/join"
)

const (
	firstStreamPause = 500 * time.Millisecond
	maxStreamPause   = 10 * time.Second
	streamWrite      = 10 * time.Second
	healthLook       = 250 * time.Millisecond
	// A stream that the controller ends sooner than this, cutsToDoubt times in a row, is a reason to ask why, at most each doubtPause.
	shortStream = 3 * time.Second
	cutsToDoubt = 3
	doubtPause  = 2 * time.Minute
)

// holdStream keeps one stream to the controller while the machine lives. It is opened anew after each renewal.
func (m *machine) holdStream(ctx context.Context) {
	pause := firstStreamPause
	cuts, asked := 0, time.Time{}
	for ctx.Err() == nil {
		began := time.Now()
		err := m.oneStream(ctx) // why it ended is nobody's to read: the next one follows
		_, unreachable := errors.AsType[*join.Unused](err)
		cuts++
		if unreachable || time.Since(began) > shortStream {
			cuts = 0
		}
		if cuts >= cutsToDoubt && (asked.IsZero() || time.Since(asked) > doubtPause) {
			asked = time.Now()
			select {
			case m.doubt <- struct{}{}:
			default:
			}
		}
		if time.Since(began) > maxStreamPause {
			pause = firstStreamPause
		}
		if !sleep(ctx, jitter(pause)) {
			return
		}
		pause = min(2*pause, maxStreamPause)
	}
}

func (m *machine) oneStream(ctx context.Context) error {
	pair, renewed := m.pairNow()
	conn, err := m.client.Stream(ctx, pair)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		defer cancel()
		readErr = m.readOrders(ctx, conn)
	})
	writeErr := m.writeHealth(ctx, conn, renewed)
	cancel()
	err = errors.Join(writeErr, conn.Close())
	wg.Wait()
	return errors.Join(err, readErr)
}

// writeHealth sends health on every change and at least each HealthInterval, the end of a drain, and logins, until ctx ends or
// the certificates are renewed.
func (m *machine) writeHealth(ctx context.Context, conn *tls.Conn, renewed <-chan struct{}) error {
	var last join.Health
	var sent time.Time
	toldDrained := false
	var reported uint64 // the last login sent on this stream
	tick := time.NewTicker(healthLook)
	defer tick.Stop()
	for {
		health, drained := m.health()
		if sent.IsZero() || !reflect.DeepEqual(health, last) || time.Since(sent) >= join.HealthInterval-healthLook {
			if err := send(conn, join.FromServer{Health: &health}); err != nil {
				return err
			}
			last, sent = health, time.Now()
		}
		if drained != nil && !toldDrained {
			if err := send(conn, join.FromServer{Drained: drained}); err != nil {
				return err
			}
			toldDrained = true
		}
		for _, login := range m.logins.after(reported) {
			if err := send(conn, join.FromServer{Login: &login}); err != nil {
				return err
			}
			reported = login.Number
		}
		select {
		case <-ctx.Done():
			return nil
		case <-renewed:
			return nil
		case <-m.changed:
		case <-tick.C:
		}
	}
}

func send(conn *tls.Conn, f join.FromServer) error {
	if err := conn.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil {
		return fmt.Errorf("setting a deadline: %w", err)
	}
	return join.WriteFrame(conn, f)
}

// readOrders takes what the controller says. It is believed as far as it goes: a drain can only take users away, and a policy
// is verified like the first one.
func (m *machine) readOrders(ctx context.Context, conn *tls.Conn) error {
	frames := join.NewFrames(conn, join.MaxToServer)
	for {
		order, err := frames.ToServer()
		if err != nil {
			return err
		}
		switch {
		case order.Drain != nil:
			m.beginDrain(ctx, order.Drain.Limit)
		case order.Logins != nil:
			m.logins.kept(order.Logins.Through)
		case order.Ledger != nil:
			m.shownLife(order.Ledger)
		case order.Trust != nil:
			if err := m.newTrust(*order.Trust); err != nil {
				reason, _ := code(err)
				m.con.stage("trust policy refused: %s", reason)
			}
		case order.Extension != nil:
			if err := m.takeExtension(*order.Extension, time.Now()); err != nil {
				reason, detail := code(err)
				m.con.stage("extension refused: %s", reason)
				m.told.add("%s: %s", reason, detail)
			}
		case order.Order != nil:
			if err := m.takeOrder(*order.Order, time.Now()); err != nil {
				reason, detail := code(err)
				m.con.stage("order refused: %s", reason)
				m.told.add("%s: %s", reason, detail)
			}
		case order.Policy != nil:
			if err := m.newPolicy(order.Policy.Bundle, order.Policy.BundleSig, time.Now()); err != nil {
				reason, _ := code(err)
				m.con.stage("policy refused: %s", reason)
			}
		}
	}
}
