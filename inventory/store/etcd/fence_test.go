package etcd

import (
	"errors"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// TestFenceInTransaction: a claim is lost after the fence was read and before the write. The write fails all the same.
func TestFenceInTransaction(t *testing.T) {
	a, now, ttl := place(t), time.Now(), 30*time.Second
	one, two := openAt(t, a), openAt(t, a)
	fleet := inventory.Fleet{Name: "lab", Regions: []inventory.Region{{Name: "se"}}, Racks: []inventory.Rack{{Name: "se-a", Region: "se"}},
		Servers: []inventory.Server{{Name: "a", Rack: "se-a", Role: "vpn", Capacity: 1}}}
	if err := one.Sync(t.Context(), fleet, now); err != nil {
		t.Fatal(err)
	}
	mine, err := one.Claim(t.Context(), "a", "one", ttl, now)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	_, err = one.Fenced(mine).BeginLife(t.Context(), "a", 0, inventory.New, "x", now, func([]store.Server) error {
		if asked++; asked == 1 {
			lapse(t, one, mine)
			if _, err := two.Claim(t.Context(), "a", "two", ttl, now.Add(ttl)); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if !errors.Is(err, store.ErrFenced) {
		t.Errorf("got %v, want %v", err, store.ErrFenced)
	}
	if s, err := two.Server(t.Context(), "a"); err != nil || s.Epoch != 0 || s.State != inventory.New {
		t.Errorf("got %s in life %d, %v, want it untouched", s.State, s.Epoch, err)
	}
}
