// Package storetest is what every keeper of the state store has to pass: the promises of package store, with several openers at once.
package storetest

import (
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Kind is one kind of store.
type Kind struct {
	// Open makes a place for a store and returns what opens it, as often as it is called; each opener is as another process.
	Open func(t testing.TB) (open func(t testing.TB) store.Store)
	// Lapse lets a claim end as if its holder had died, and returns a time at which it is over.
	Lapse func(t testing.TB, s store.Store, c store.Claim) time.Time
}

// now is when everything happens.
var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// states are all of them.
var states = []inventory.State{inventory.New, inventory.Serving, inventory.Draining, inventory.Wiping, inventory.Booting,
	inventory.Attesting, inventory.Baking, inventory.Quarantined, inventory.Standby}

// Run tests a kind of store.
func Run(t *testing.T, k Kind) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, Kind)
	}{
		{"Sync", testSync}, {"MoveEveryPair", testMoveEveryPair}, {"MoveCompares", testMoveCompares}, {"MoveOnce", testMoveOnce},
		{"MoveChecked", testMoveChecked}, {"Life", testLife}, {"Cancelled", testCancelled}, {"BeginLifeFromEveryState", testBeginLifeFromEveryState},
		{"BeginLifeAsks", testBeginLifeAsks}, {"EventsGoOn", testEventsGoOn}, {"Taint", testTaint}, {"Tickets", testTickets},
		{"TicketUsedOnce", testTicketUsedOnce}, {"Failures", testFailures}, {"Extend", testExtend}, {"Restarts", testRestarts},
		{"Logins", testLogins}, {"ActUnder", testActUnder}, {"Runs", testRuns}, {"Claims", testClaims}, {"ClaimOfNoServer", testClaimOfNoServer},
		{"Fenced", testFenced}, {"FencedMeanwhile", testFencedMeanwhile}, {"CancelRun", testCancelRun}, {"BigPlan", testBigPlan}, {"Journal", testJournal},
		{"EndRotation", testEndRotation}, {"Pause", testPause}, {"Marks", testMarks}, {"Floor", testFloor}, {"Checks", testChecks},
		{"Hammer", testHammer}, {"Transfer", testTransfer}, {"ImportRefuses", testImportRefuses}, {"ImportRevokesTickets", testImportRevokesTickets},
		{"NextLife", testNextLife},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, k) })
	}
}

// fleet returns a new store with these servers, each New.
func fleet(t testing.TB, k Kind, names ...string) store.Store {
	t.Helper()
	s := k.Open(t)(t)
	add(t, s, names...)
	return s
}

// to takes a New server to the state by legal moves, through one new life.
func to(t testing.TB, s store.Store, name string, state inventory.State) uint64 {
	t.Helper()
	path := []inventory.State{inventory.New, inventory.Wiping, inventory.Booting, inventory.Attesting, inventory.Baking, inventory.Serving, inventory.Draining}
	if state == inventory.Quarantined || state == inventory.Standby {
		path = []inventory.State{inventory.New, inventory.Wiping, state}
	}
	var epoch uint64
	for i, next := range path {
		var err error
		switch {
		case next == inventory.Wiping:
			epoch, err = s.BeginLife(t.Context(), name, epoch, path[i-1], "test", now, nil)
		case i > 0:
			err = s.Move(t.Context(), name, epoch, path[i-1], next, "test", now)
		}
		if err != nil {
			t.Fatal(err)
		}
		if next == state {
			return epoch
		}
	}
	t.Fatalf("no way to %s", state)
	return 0
}

func get(t testing.TB, s store.Store, name string) store.Server {
	t.Helper()
	v, err := s.Server(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// serving brings a server that was added to Serving in a life.
func serving(t testing.TB, s store.Store, name string, now time.Time) uint64 {
	t.Helper()
	epoch, err := s.BeginLife(t.Context(), name, 0, inventory.New, "test", now, nil)
	if err != nil {
		t.Fatal(err)
	}
	from := inventory.Wiping
	for _, to := range []inventory.State{inventory.Booting, inventory.Attesting, inventory.Baking, inventory.Serving} {
		if err := s.Move(t.Context(), name, epoch, from, to, "test", now); err != nil {
			t.Fatal(err)
		}
		from = to
	}
	return epoch
}

func add(t testing.TB, s store.Store, names ...string) {
	t.Helper()
	var f inventory.Fleet
	for _, n := range names {
		f.Servers = append(f.Servers, inventory.Server{Name: n})
	}
	if err := s.Sync(t.Context(), f, now); err != nil {
		t.Fatal(err)
	}
}
