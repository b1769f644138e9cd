package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/fleetctl/web"
	"mayfly/internal/audit"
	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
)

// maxFailures bounds how many servers in quarantine are asked about at once.
const maxFailures = 100

// gather reads what the page shows: the signed policy in force, and all that store and ledger know.
func (g *pageSource) gather(ctx context.Context) (web.View, error) {
	now, b := time.Now(), g.policy.current()
	in := web.Input{Fleet: b.Inventory, Policy: b.Version, Failures: map[string]web.Failure{}}
	var err error
	if in.Servers, err = g.store.Servers(ctx); err != nil {
		return web.View{}, err
	}
	known, err := rotate.ReadKnown(ctx, g.store)
	if err != nil {
		return web.View{}, err
	}
	if err := g.runs(ctx, &in, now); err != nil {
		return web.View{}, err
	}
	known.Here = here(b.Inventory)
	in.Use, in.Marks, in.Pause = known.Use, known.Marks, known.Pause
	version := known.Use.Version
	if version == 0 {
		if version, err = g.d.current(); err != nil {
			return web.View{}, err
		}
	}
	rotation := b.Policy.Rotation
	in.Rules = rotate.Rules(b.Inventory, rotation, nil)
	in.Snapshot, in.Health = rotate.Snapshot(b, version, in.Servers)
	known.Into(&in.Snapshot, in.Servers, zones(rotation), now)
	in.Plan, in.Refusals = plan.Make(in.Snapshot, in.Rules, in.Health, now)
	in.Train = trainOf(in.Plan.Train, in.Rules.Train.MaxErrors)
	for _, w := range plan.Danger(in.Snapshot, in.Rules, in.Health, now, rotation.Schedule.Alert.Std()) {
		in.Alerts = append(in.Alerts, web.Alert{Mood: web.Danger, Code: "deadline_in_danger", Server: w.Server, Region: w.Region,
			Text: fmt.Sprintf("%s ends itself in %s, and waits: %s", w.Server, (time.Duration(w.Left) * time.Second).Round(time.Second), w.Why)})
	}
	if err := g.failures(ctx, &in); err != nil {
		return web.View{}, err
	}
	t, _, err := g.d.trust()
	if err != nil {
		return web.View{}, err
	}
	in.Ledger, in.Entries = g.ledger.look(t, now)
	return web.Build(in, now), nil
}

// runs reads the open run, or the last one, and who claims what.
func (g *pageSource) runs(ctx context.Context, in *web.Input, now time.Time) (err error) {
	if in.Run, in.Open, err = g.store.OpenRun(ctx); err != nil {
		return err
	}
	if !in.Open {
		if in.Run, _, err = g.store.LastRun(ctx); err != nil {
			return err
		}
	}
	in.Claims, err = g.store.Claims(ctx, now)
	in.Claims = slices.DeleteFunc(in.Claims, func(c store.Claim) bool { return strings.HasPrefix(c.Server, store.Shared) })
	return err
}

// failures reads what servers in quarantine said when they did not come up.
func (g *pageSource) failures(ctx context.Context, in *web.Input) error {
	for _, s := range in.Servers {
		if s.State != inventory.Quarantined || len(in.Failures) == maxFailures {
			continue
		}
		reason, detail, ok, err := g.store.LastFailure(ctx, s.Name, s.Epoch)
		if err != nil {
			return err
		}
		if ok {
			in.Failures[s.Name] = web.Failure{Reason: reason, Detail: detail}
		}
	}
	return nil
}

// trainOf is the planner's train, for the page.
func trainOf(t *plan.TrainState, most float64) *web.Train {
	if t == nil {
		return nil
	}
	w := &web.Train{Release: t.Release, From: t.From, Stage: t.Stage, Number: t.Number, Stages: t.Stages, Reach: t.Reach, Servers: t.Servers, Pending: t.Pending,
		Attempts: t.Attempts, Failed: t.Failed, Lower: t.Lower, Upper: t.Upper, MaxErrors: most, Verdict: string(t.Verdict), Why: t.Why}
	if !t.Until.IsZero() {
		until := t.Until.UTC()
		w.Until = &until
	}
	return w
}

// pageLedger follows the public ledger, of which it reads each entry once.
type pageLedger struct {
	dir string

	mu      sync.Mutex // guards the rest
	next    uint64
	entries map[string]web.Entry // the first entry of each server's latest life
}

// look reads what is new. Where the ledger cannot be read, the page says so and shows what was read before.
func (l *pageLedger) look(t *trust.Trust, now time.Time) (web.Ledger, map[string]web.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries == nil {
		l.entries = map[string]web.Entry{}
	}
	at := now.UTC()
	out := web.Ledger{Origin: ledger.Origin(t.Fleet), Needed: t.WitnessThreshold, Read: &at}
	next, err := audit.Read(l.dir, l.next, func(index uint64, text []byte) error {
		e, err := ledger.Parse(text)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if e.Begin != nil {
			l.entries[e.Begin.Server] = web.Entry{Index: index, At: e.Time.UTC(), Epoch: e.Begin.Epoch}
		}
		return nil
	})
	l.next = max(l.next, next)
	out.Entries = l.next
	unread := err
	keys, err := ledger.KeysOf(t)
	if err == nil {
		err = checkpoint(&out, l.dir, keys)
	}
	switch {
	case err != nil:
		out.Problem = "no checkpoint is there that enough witnesses cosigned"
	case unread != nil && l.next < out.Size: // what is in the signer's journal only, which is another user's, is not in a checkpoint yet
		out.Problem = "its entries cannot be read"
	}
	entries := maps.Clone(l.entries)
	for name, e := range entries {
		e.Proven = e.Index < out.Size
		entries[name] = e
	}
	return out, entries
}

// entry is where the ledger has the beginning of a server's latest life.
func (l *pageLedger) entry(server string) (web.Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[server]
	return e, ok
}

// checkpoint reads the newest one that those who verify believe, and who cosigned it.
func checkpoint(out *web.Ledger, dir string, keys ledger.Keys) error {
	var failed error
	for _, name := range []string{audit.WitnessedFile, audit.CheckpointFile} {
		data, err := durable.ReadRegular(filepath.Join(dir, name), audit.MaxCheckpoint)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		head, err := keys.Checkpoint(data)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		out.Size, out.Root = head.Size, base64.StdEncoding.EncodeToString(head.Root[:])
		for _, c := range head.Cosigned {
			out.Witnesses = append(out.Witnesses, c.Witness)
		}
		return nil
	}
	return failed
}
