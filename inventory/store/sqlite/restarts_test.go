package sqlite

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

func TestRestarts(t *testing.T) {
	ctx := t.Context()
	s := openStore(t, filepath.Join(t.TempDir(), "store.db"))
	add(t, s, "a")
	epoch, err := s.BeginLife(ctx, "a", 0, inventory.New, "test", time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC()
	r := store.Restart{Epoch: epoch, File: []byte("order"), Sig: []byte("sig"), NotAfter: at.Add(time.Minute)}
	if err := s.OrderRestart(ctx, "a", store.Restart{Epoch: epoch + 1}); !errors.Is(err, store.ErrStale) {
		t.Errorf("another life: got %v", err)
	}
	if err := s.OrderRestart(ctx, "a", r); err != nil {
		t.Fatal(err)
	}
	if err := s.RestartDelivered(ctx, "a", epoch+1, at); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Restarts(ctx); err != nil || len(all) != 1 || string(all["a"].File) != "order" || !all["a"].Delivered.IsZero() || !all["a"].NotAfter.Equal(r.NotAfter) {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := errors.Join(s.RestartDelivered(ctx, "a", epoch, at), s.RestartDelivered(ctx, "a", epoch, at.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Restarts(ctx); err != nil || !all["a"].Delivered.Equal(at) {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := s.OrderRestart(ctx, "a", r); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Restarts(ctx); err != nil || !all["a"].Delivered.IsZero() {
		t.Errorf("ordered again: got %+v, %v", all, err)
	}
}
