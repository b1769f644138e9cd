package rotate

import (
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
)

// TestServerTakenOutOfTheInventory: one that was under way when it left the signed inventory is left as it is, and keeps no other from its rebuild.
func TestServerTakenOutOfTheInventory(t *testing.T) {
	b := testBundle("se-1", "se-2", "nl-1")
	dir, w := serving(t, b)
	gone, err := w.store.Server(t.Context(), "nl-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Move(t.Context(), "nl-1", gone.Epoch, inventory.Serving, inventory.Draining, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	less := testBundle("se-1", "se-2")
	r := testRunner(t, dir, less)
	defer r.Store.Close()
	var talk strings.Builder
	r.Talk = &talk
	result, err := r.Run(t.Context(), all(less))
	if err != nil || result.Result != "done" || len(result.Servers) != 2 {
		t.Fatalf("got %+v, %v, want both others rebuilt\n%s", result, err, talk.String())
	}
	if n := strings.Count(talk.String(), "nl-1: draining in life 1, and not in the signed inventory"); n != 1 {
		t.Errorf("it is said %d times, want once:\n%s", n, talk.String())
	}
	if now, err := w.store.Server(t.Context(), "nl-1"); err != nil || now.State != inventory.Draining || now.Epoch != gone.Epoch {
		t.Errorf("nl-1 became %+v, %v", now, err)
	}
}
