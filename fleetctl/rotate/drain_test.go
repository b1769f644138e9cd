package rotate

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/rebuild/join"
)

// fakeStatements signs what it is asked for, and notes what the store knew then.
type fakeStatements struct {
	store store.Store
	at    []store.Server
	err   error
}

func (f *fakeStatements) Drained(ctx context.Context, server string, epoch uint64, expires time.Time) (data, sig []byte, err error) {
	s, err := f.store.Server(ctx, server)
	if err != nil {
		return nil, nil, err
	}
	f.at = append(f.at, s)
	return []byte(expires.String()), []byte("signature"), f.err
}

// TestDrainForAnEngineer goes the whole way: drained and signed, held against every rotate, then rebuilt before it serves again.
func TestDrainForAnEngineer(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	ctx := t.Context()
	before, err := r.Store.Server(ctx, "se-1")
	if err != nil {
		t.Fatal(err)
	}
	signs := &fakeStatements{store: r.Store}
	d := &Drainer{Store: r.Store, Bundle: b, Signer: signs, Talk: fakeTalk{}, Poll: 2 * time.Millisecond}
	got, err := d.Drain(ctx, "se-1", "disk full", 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got.Server != "se-1" || got.Epoch != before.Epoch || string(got.Statement) != got.Expires.String() || time.Until(got.Expires) > 3*time.Second+policies.DrainedMargin {
		t.Errorf("got %+v", got)
	}
	if at := signs.at[0]; !at.Drained || !at.Tainted || at.State != inventory.Draining || !at.HeldUntil.Equal(got.Expires) || at.TaintReason != "disk full" {
		t.Errorf("signed about %+v", at)
	}

	var refused *Refused
	if _, err := d.Drain(ctx, "se-2", "x", time.Minute); !errors.As(err, &refused) || !refused.Refused() || refused.Why[0].Code != plan.DrainFloor ||
		!strings.Contains(err.Error(), "serving 1000 - 1000 (se-2) = 0, under the floor of 1000 (out: [se-1])") {
		t.Errorf("under the floor: got %v", err)
	}
	if _, err := d.Drain(ctx, "se-1", "x", time.Minute); !errors.As(err, &refused) || !strings.Contains(err.Error(), "it is rebuilt next") {
		t.Errorf("again, at its end: got %v", err)
	}

	rules := Rules(b.Inventory, b.Policy.Rotation, nil)
	result, err := r.Run(ctx, rules)
	if err != nil || result.Result != "nothing due" {
		t.Errorf("rotate while it is held: got %+v, %v", result, err)
	}
	p, err := r.Plan(ctx, rules, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		if s.Server == "se-1" && (s.Reason != plan.Held || s.Due || s.Now) {
			t.Errorf("planned while it is held: %+v", s)
		}
	}
	if s, err := r.Store.Server(ctx, "se-1"); err != nil || s.State != inventory.Draining || s.Epoch != before.Epoch || !w.machine(t, "se-1").On {
		t.Fatalf("touched while it is held: %+v, %v", s, err)
	}

	over := time.Now().Add(time.Second).UTC().Truncate(time.Second) // sooner than a minute
	if err := r.Store.Hold(ctx, "se-1", before.Epoch, over); err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Until(over))
	if p, err = r.Plan(ctx, rules, time.Now()); err != nil || !anyInFlight(p) {
		t.Errorf("planned after its end: %+v, %v", p.Steps, err)
	}
	result, err = r.Run(ctx, rules)
	if err != nil || result.Result != "done" || len(result.Servers) != 1 || result.Servers[0].Name != "se-1" {
		t.Fatalf("rotate after its end: got %+v, %v", result, err)
	}
	after, err := r.Store.Server(ctx, "se-1")
	if err != nil || after.State != inventory.Serving || after.Tainted || after.Epoch <= before.Epoch || w.boots(t, "se-1") != 2 {
		t.Errorf("after the rebuild: %+v, %v", after, err)
	}
	events, err := r.Store.Events(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Server == "se-1" && e.From == string(inventory.Draining) && e.To != string(inventory.Wiping) {
			t.Errorf("from draining to %s", e.To)
		}
	}
}

// TestDrainGoesOn: one that was interrupted is finished by the same command, and by nobody else.
func TestDrainGoesOn(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	w.stop() // no server answers from here on
	w.done.Wait()
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	signs := &fakeStatements{store: r.Store}
	d := &Drainer{Store: r.Store, Bundle: b, Signer: signs, Talk: fakeTalk{}, Poll: 2 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() { // interrupted once it drains
		for ctx.Err() == nil {
			if s, err := r.Store.Server(ctx, "se-1"); err == nil && s.State == inventory.Draining {
				cancel()
			}
			<-time.After(time.Millisecond)
		}
	})
	if _, err := d.Drain(ctx, "se-1", "disk full", time.Hour); !errors.Is(err, ErrInterrupted) {
		t.Fatalf("interrupted: got %v", err)
	}
	watch.Wait()
	if len(signs.at) != 0 {
		t.Fatal("signed before it was drained")
	}
	rules := Rules(b.Inventory, b.Policy.Rotation, nil)
	if result, err := r.Run(t.Context(), rules); err != nil || result.Result != "nothing due" {
		t.Errorf("rotate meanwhile: got %+v, %v", result, err)
	}
	s, err := r.Store.Server(t.Context(), "se-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Store.SetDrained(t.Context(), "se-1", s.Epoch, true); err != nil {
		t.Fatal(err)
	}
	got, err := d.Drain(t.Context(), "se-1", "another reason", time.Hour)
	if err != nil || !got.Forced || got.Epoch != s.Epoch || got.Expires.After(s.HeldUntil) {
		t.Errorf("gone on: got %+v, %v; held until %s", got, err, s.HeldUntil)
	}
	// The signer refuses: nobody was let onto it, so nothing holds the rebuild up.
	signs.err = join.Refuse(join.LifeOver, "as the test says")
	if _, err := d.Drain(t.Context(), "se-1", "x", time.Hour); err == nil {
		t.Error("a refusal was not told")
	}
	if s, err := r.Store.Server(t.Context(), "se-1"); err != nil || s.HeldUntil.After(time.Now()) || !s.Tainted {
		t.Errorf("after a refusal: %+v, %v", s, err)
	}
}

// TestDrainRefuses what is not there, does not serve, or is about to end anyway; and gives up on a server that never answers.
func TestDrainRefuses(t *testing.T) {
	b := testBundle("se-1", "se-2", "nl-1")
	b.Policy.Rotation.DrainLimit = 0
	dir, w := serving(t, b)
	w.stop()
	w.done.Wait()
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	signs := &fakeStatements{store: r.Store}
	d := &Drainer{Store: r.Store, Bundle: b, Signer: signs, Talk: fakeTalk{}, Poll: 2 * time.Millisecond}
	if _, err := d.Drain(t.Context(), "se-9", "x", time.Hour); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("an unknown server: got %v", err)
	}
	var refused *Refused
	now := time.Now()
	if _, err := d.begin(t.Context(), "nl-1", "x", time.Hour, w.end.Add(-time.Minute)); !errors.As(err, &refused) {
		t.Errorf("at the end of its life: got %v", err)
	}
	if err := r.Store.Move(t.Context(), "nl-1", 1, inventory.Serving, inventory.Draining, "test", now); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Drain(t.Context(), "nl-1", "x", time.Hour); !errors.As(err, &refused) || refused.Why[0].Code != plan.DrainState {
		t.Errorf("one that rotate drains: got %v", err)
	}
	if _, err := d.Drain(t.Context(), "se-1", "x", time.Hour); err == nil || !strings.Contains(err.Error(), "without its word") {
		t.Errorf("one that never answers: got %v", err)
	}
	if s, err := r.Store.Server(t.Context(), "se-1"); err != nil || !s.Tainted || s.HeldUntil.After(time.Now()) {
		t.Errorf("it is held up: %+v, %v", s, err)
	}
	if len(signs.at) != 0 {
		t.Error("it was signed that a server is drained which never said so")
	}
}
