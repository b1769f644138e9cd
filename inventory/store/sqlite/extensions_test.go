package sqlite

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// TestExtend: the life that it is for lasts longer, no other does, and the next life begins without.
func TestExtend(t *testing.T) {
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Second)
	s := openStore(t, filepath.Join(t.TempDir(), "store.db"))
	add(t, s, "a")
	epoch := serving(t, s, "a", now)
	if err := s.Extend(ctx, "a", now, store.Extension{Epoch: epoch + 1, Statement: []byte("x"), Sig: []byte("y")}); !errors.Is(err, store.ErrStale) {
		t.Errorf("another life: got %v, want store.ErrStale", err)
	}
	if err := s.Extend(ctx, "b", now, store.Extension{Epoch: epoch}); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("another server: got %v, want store.ErrUnknown", err)
	}
	if all, err := s.Extensions(ctx); err != nil || len(all) != 0 {
		t.Errorf("after refusals: got %v, %v", all, err)
	}
	for i, until := range []time.Duration{2 * time.Hour, 3 * time.Hour, time.Hour} { // the last one shortens nothing
		if err := s.Extend(ctx, "a", now.Add(until), store.Extension{Epoch: epoch, Statement: []byte{byte(i)}, Sig: []byte("y")}); err != nil {
			t.Fatal(err)
		}
	}
	have, err := s.Server(ctx, "a")
	if err != nil || !have.Extended || !have.Deadline.Equal(now.Add(3*time.Hour)) {
		t.Errorf("got extended %v until %s, %v", have.Extended, have.Deadline, err)
	}
	if all, err := s.Extensions(ctx); err != nil || len(all) != 1 || all["a"].Epoch != epoch || string(all["a"].Statement) != "\x02" {
		t.Errorf("got %v, %v", all, err)
	}
	if err := s.Move(ctx, "a", epoch, have.State, inventory.Draining, "test", now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginLife(ctx, "a", epoch, inventory.Draining, "test", now, nil); err != nil {
		t.Fatal(err)
	}
	if have, err = s.Server(ctx, "a"); err != nil || have.Extended {
		t.Errorf("the next life: got %+v, %v", have, err)
	}
}
