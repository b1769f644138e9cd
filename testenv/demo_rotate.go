package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/testenv/supervise"
	"mayfly/tunnel/checkin"
)

// registerPort is where VPN servers register keys.
const registerPort = "7443"

// rotate plants canaries and finds them, then rebuilds every server under traffic.
func (d *demo) rotate(ctx context.Context) error {
	d.r.check("the plan names each server and keeps the floor", func() (string, error) { return d.seePlan(ctx) })
	for _, m := range machines {
		release, err := d.plant(ctx, m.Name)
		if err != nil {
			d.r.add("canaries planted in "+m.Name, "", err, 0)
			return err
		}
		defer release()
		if err := d.must("canaries found in "+m.Name+" before", func() (string, error) { return d.findCanaries(ctx, m.Name) }); err != nil {
			return err
		}
		id, err := d.identify(ctx, m.Name)
		if err != nil {
			d.r.add("identity of "+m.Name+" before", "", err, 0)
			return err
		}
		d.before[m.Name] = id
	}

	resolv := d.e.path("run", "resolv.conf")
	first, tunnelClient, err := d.startClient(ctx, resolv)
	if err != nil {
		d.r.add("tunnel client is up", "", err, 0)
		return err
	}
	d.say("  fetching through %s while every server is rebuilt", first.Server)
	old, err := d.servers(ctx)
	if err != nil {
		return err
	}
	events, err := d.events(ctx, 0)
	if err != nil {
		return err
	}
	last := int64(0)
	if n := len(events); n > 0 {
		last = events[n-1].ID
	}
	if err := os.RemoveAll(d.e.log("fetch")); err != nil {
		return err
	}
	fetcher, err := d.e.table.Start("fetch", d.background(d.e.bin("testenv"), "part", "fetch", "--url", targetURL(), "--resolv-conf", resolv), d.e.lab.Client.Start)
	if err != nil {
		return err
	}
	seen, err := d.watchList(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	_, rotateErr := d.rotateNow(ctx, "under traffic")
	took := time.Since(began)
	lists := seen.end()
	fetchErr := fetcher.End() // lets the fetch under way end
	clientErr := tunnelClient.End()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.r.add("fleetctl rotate wiped and rebuilt every server", fmt.Sprintf("%.1f s", took.Seconds()), rotateErr, took)

	events, err = d.events(ctx, last)
	if err != nil {
		return err
	}
	now, err := d.servers(ctx)
	if err != nil {
		return err
	}
	d.countRebuilt(old, now, events)
	d.floorHeld(events, lists)
	d.r.check("no fetch failed while servers left", func() (string, error) {
		if err := errors.Join(fetchErr, clientErr); err != nil {
			return "", err
		}
		return d.countFetches(fetcher, began, took)
	})
	return rotateErr
}

// seePlan reads the plan of a repave: every server is in it and due, some may go now, and what goes now leaves each region its floor.
func (d *demo) seePlan(ctx context.Context) (string, error) {
	text, err := d.fleetctl(ctx, "plan", "--all", "-o", "json")
	if err != nil {
		return "", err
	}
	var p plan.Plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return "", fmt.Errorf("reading the plan: %w", err)
	}
	return checkPlan(p)
}

// checkPlan works the floors out again from what the demo's fleet.toml says, not from what the plan says of itself.
func checkPlan(p plan.Plan) (string, error) {
	stays, due, now := map[string]int{}, map[string]bool{}, []string{}
	for _, m := range machines {
		stays[m.Region] += capacity
	}
	for _, s := range p.Steps {
		due[s.Server] = s.Due
		if s.Now {
			now = append(now, s.Server)
			stays[s.Region] -= s.Capacity
		}
	}
	for _, m := range machines {
		if !due[m.Name] {
			return "", fmt.Errorf("%s is not due in a repave", m.Name)
		}
	}
	switch {
	case len(now) == 0:
		return "", errors.New("nothing may go now")
	case stays["se"] < floorOfSE:
		return "", fmt.Errorf("%s at once leave region se %d, its floor is %d", strings.Join(now, " and "), stays["se"], floorOfSE)
	}
	return fmt.Sprintf("%s now, of %d; region se keeps %d", strings.Join(now, " and "), len(p.Steps), stays["se"]), nil
}

// findCanaries wants every canary of a server in its memory, and no decoy.
func (d *demo) findCanaries(ctx context.Context, server string) (string, error) {
	var words []string
	for _, c := range d.canaries[server] {
		words = append(words, c.word)
	}
	found, size, err := d.searchMemory(ctx, server, words)
	if err != nil {
		return "", err
	}
	var kinds []string
	for _, c := range d.canaries[server] {
		if found[c.word] == (c.kind == decoy) {
			return "", fmt.Errorf("%s: found %v", c.kind, found[c.word])
		}
		if c.kind != decoy {
			kinds = append(kinds, c.kind)
		}
	}
	return fmt.Sprintf("%s in %.0f MB of memory; the decoy is not", strings.Join(kinds, ", "), mb(size)), nil
}

// countRebuilt counts servers that live a new life and serve.
func (d *demo) countRebuilt(old, now map[string]store.Server, events []store.Event) {
	for _, m := range machines {
		d.r.check(m.Name+" rebuilt once and serving", func() (string, error) {
			a, b := old[m.Name], now[m.Name]
			if b.State != inventory.Serving || b.Epoch <= a.Epoch {
				return "", fmt.Errorf("state %s, epoch %d, before %d, cause %q", b.State, b.Epoch, a.Epoch, b.Cause)
			}
			wiped := 0
			for _, ev := range events {
				if ev.Server == m.Name && inventory.State(ev.To) == inventory.Booting {
					wiped++
				}
			}
			if wiped != 1 {
				return "", fmt.Errorf("booted %d times", wiped)
			}
			d.r.Rebuilt++
			return bootTimes(events, m.Name, b.Epoch), nil
		})
	}
}

// floorHeld computes the least capacity of region se from the store's events and from the lists that a client was given.
func (d *demo) floorHeld(events []store.Event, lists []sample) {
	d.r.check("never below floor, by the store's events", func() (string, error) {
		state := map[string]inventory.State{}
		for _, m := range machines {
			state[m.Name] = inventory.Serving
		}
		least, below := capacity*len(machines), 0
		for _, ev := range events {
			state[ev.Server] = inventory.State(ev.To)
			have := 0
			for _, m := range machines {
				if m.Region == "se" && state[m.Name] == inventory.Serving {
					have += capacity
				}
			}
			least = min(least, have)
			if have < floorOfSE {
				below++
			}
		}
		d.r.BelowFloor += below
		if below > 0 {
			return "", fmt.Errorf("%d of %d events left region se with less than %d, at least %d", below, len(events), floorOfSE, least)
		}
		return fmt.Sprintf("%d events, least capacity of region se %d, floor %d", len(events), least, floorOfSE), nil
	})
	d.r.check("never below floor, by the lists that clients got", func() (string, error) {
		least, below, failed := capacity*len(machines), 0, 0
		var lastErr error
		for _, s := range lists {
			if s.err != nil {
				failed++
				lastErr = s.err
				continue
			}
			least = min(least, s.capacity)
			if s.capacity < floorOfSE {
				below++
			}
		}
		d.r.BelowFloor += below
		switch {
		case below > 0:
			return "", fmt.Errorf("%d of %d lists had less than %d", below, len(lists), floorOfSE)
		case failed > 0:
			return "", fmt.Errorf("%d of %d check-ins failed: %w", failed, len(lists), lastErr)
		case len(lists) < minFetches:
			return "", fmt.Errorf("only %d lists were seen", len(lists))
		}
		return fmt.Sprintf("%d lists, least capacity of region se %d", len(lists), least), nil
	})
}

// countFetches reads what the fetcher did since the rotation began.
func (d *demo) countFetches(p *supervise.Process, began time.Time, took time.Duration) (string, error) {
	data, err := os.ReadFile(p.Log)
	if err != nil {
		return "", err
	}
	ok, through, slowest := 0, map[string]int{}, 0.0
	var firstErr string
	for line := range bytes.Lines(data) {
		var f fetched
		if !bytes.HasPrefix(line, []byte("{")) {
			continue
		}
		if err := json.Unmarshal(line, &f); err != nil {
			return "", fmt.Errorf("reading the fetcher's line %q: %w", line, err)
		}
		slowest = max(slowest, f.Seconds)
		if f.Error != "" {
			d.r.FailedFetches++
			if firstErr == "" {
				firstErr = fmt.Sprintf("number %d at %s, resolver %s, %s after it began: %s", f.N, f.At.Format(time.TimeOnly), f.DNS, f.At.Sub(began).Round(time.Second), f.Error)
			}
			continue
		}
		ok++
		through[f.Source]++
	}
	moves := 0
	events, err := clientEvents(d.e.log("tunnel-client"))
	if err != nil {
		return "", err
	}
	for _, e := range events {
		if e.Event == "moved" {
			moves++
		}
	}
	detail := fmt.Sprintf("%d fetches of %d KiB through %d servers, %d moves, slowest %.1f s", ok, fetchBytes>>10, len(through), moves, slowest)
	switch {
	case d.r.FailedFetches > 0:
		return detail, fmt.Errorf("%d failed, first %s", d.r.FailedFetches, firstErr)
	case moves == 0 || len(through) < 2:
		return detail, errors.New("the client never moved")
	}
	return detail, carried(ok, slowest, took)
}

// carried wants fetches to have gone on all the time that a rotation took: none of them stuck, and enough of them.
func carried(ok int, slowest float64, took time.Duration) error {
	want := max(minFetches, int(took/fetchEvery))
	switch {
	case ok < want:
		return fmt.Errorf("too few in %.0f s to prove anything, want %d", took.Seconds(), want)
	case slowest > slowFetch.Seconds():
		return fmt.Errorf("the slowest took longer than %s: the tunnel was stuck", slowFetch)
	}
	return nil
}

// watch asks for the list again and again, as a client does, until it is ended.
type watch struct {
	stop    context.CancelFunc
	done    sync.WaitGroup
	samples []sample // owned by the watching goroutine until done
}

// sample is what one list promised: capacity of region se that takes users.
type sample struct {
	capacity int
	err      error
}

func (d *demo) watchList(ctx context.Context) (*watch, error) {
	c, err := d.checkinClient()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	w := &watch{stop: stop}
	w.done.Go(func() {
		tick := time.NewTicker(samplePause)
		defer tick.Stop()
		for {
			list, err := c.Fetch(ctx, time.Now())
			if ctx.Err() != nil {
				return
			}
			w.samples = append(w.samples, sample{seCapacity(list), err})
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return w, nil
}

func (w *watch) end() []sample {
	w.stop()
	w.done.Wait()
	return w.samples
}

func seCapacity(list *checkin.List) int {
	if list == nil {
		return 0
	}
	n := 0
	for _, s := range list.Servers {
		if s.Region == "se" && !s.Draining {
			n += capacity
		}
	}
	return n
}
