package etcd

import "testing"

// TestLoadAt: servers read at a revision are those of then, with the guard's revision of then.
func TestLoadAt(t *testing.T) {
	ctx, s := t.Context(), openAt(t, place(t))
	if err := s.Sync(ctx, fleetOfTwo, then); err != nil {
		t.Fatal(err)
	}
	_, rev, guarded, err := s.load(ctx, 0)
	if err != nil || guarded == 0 || rev < guarded {
		t.Fatalf("got revision %d, guard %d, %v", rev, guarded, err)
	}
	if _, err := s.BeginLife(ctx, "a", 0, "new", "", then, nil); err != nil {
		t.Fatal(err)
	}
	all, at, before, err := s.load(ctx, rev)
	if err != nil || at != rev || before != guarded || len(all) != 2 || all[0].Epoch != 0 {
		t.Errorf("got %+v at %d, guard %d, %v, want guard %d at %d", all, at, before, err, guarded, rev)
	}
	all, _, now, err := s.load(ctx, 0)
	if err != nil || now <= guarded || all[0].Epoch != 1 {
		t.Errorf("now: %+v, guard %d, %v", all, now, err)
	}
}
