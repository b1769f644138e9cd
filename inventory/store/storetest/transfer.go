package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Fill writes something of everything.
func Fill(t testing.TB, s store.Store) {
	t.Helper()
	ctx := t.Context()
	add(t, s, "a", "b", "c", "d")
	epoch := to(t, s, "a", inventory.Booting)
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(s.PutTicket(ctx, "a", epoch, [32]byte{1}, now.Add(time.Hour)), s.UseTicket(ctx, [32]byte{1}, "a", epoch, now),
		s.Joined(ctx, "a", epoch, store.Joined{BootID: "boot", HostKey: "host", TunnelKey: "tunnel", TLSKey: "tls", Evidence: "claimed", At: now, Deadline: now.Add(time.Hour)}),
		s.SetHealth(ctx, "a", epoch, []byte(`{"ready":true}`), now), s.SetRelease(ctx, "a", epoch, "7"),
		s.Move(ctx, "a", epoch, inventory.Attesting, inventory.Baking, "x", now), s.Move(ctx, "a", epoch, inventory.Baking, inventory.Serving, "x", now),
		s.OrderDrain(ctx, "a", epoch, time.Minute), s.Extend(ctx, "a", now.Add(2*time.Hour), store.Extension{Epoch: epoch, Statement: []byte("s"), Sig: []byte("g")}),
		s.OrderRestart(ctx, "a", store.Restart{Epoch: epoch, File: []byte("f"), Sig: []byte("g"), NotAfter: now}), s.RestartDelivered(ctx, "a", epoch, now.Add(1)))
	to(t, s, "b", inventory.Booting)
	must(s.PutTicket(ctx, "b", 1, [32]byte{2}, now.Add(time.Hour)), s.BootFailed(ctx, "b", 1, "disk_present", "<vda>", now))
	to(t, s, "c", inventory.Serving)
	must(s.Taint(ctx, "c", 1, "disk & full", now.Add(time.Hour), now, func([]store.Server) error { return nil }))
	to(t, s, "d", inventory.Booting)
	must(s.PutTicket(ctx, "d", 1, [32]byte{3}, now.Add(time.Hour)), s.UseTicket(ctx, [32]byte{3}, "d", 1, now))
	if err := s.UseTicket(ctx, [32]byte{3}, "d", 1, now); !errors.Is(err, store.ErrTicketUsed) {
		t.Fatal(err)
	}
	for i := range 2 {
		id, err := s.BeginRun(ctx, []byte(fmt.Sprintf("plan %d", i)), now)
		must(err, s.Record(ctx, store.Entry{Run: id, Server: "a", Epoch: epoch, Step: "wipe", Outcome: "done", At: now}),
			s.Record(ctx, store.Entry{Run: id, Server: "b", Epoch: 1, Step: "wipe", At: now}), s.CancelRun(ctx, id, "alice", now))
		if i == 0 {
			must(s.EndRun(ctx, id, "cancelled", now))
		}
	}
	must(s.EndRotation(ctx, store.Outcome{Server: "a", Epoch: epoch, Run: 1, Release: "7", Served: true, Restarted: true, Attempts: 1, At: now}),
		s.SetPause(ctx, store.Pause{On: true, By: "alice", Why: "w", At: now}), s.UseRelease(ctx, store.Use{Version: 7, Digest: "x", By: "alice", At: now}),
		s.MarkRelease(ctx, store.Mark{Version: 6, Digest: "w", Mark: store.Bad, Why: "hangs", At: now}), s.ActUnder(ctx, 12))
	for i := range 3 {
		_, err := s.AddLogin(ctx, store.Login{Server: "a", Epoch: epoch, Number: uint64(3 - i), At: now, Seen: now, User: "alice", Peer: netip.MustParseAddrPort("[fd00::1]:22")})
		must(err)
	}
}

// Export returns what a store exports.
func Export(t testing.TB, s store.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Export(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testTransfer: what comes out of a store that was filled is what went in, but for tickets that were not used.
func testTransfer(t *testing.T, k Kind) {
	ctx := t.Context()
	from, open := fleet(t, k), k.Open(t)
	into, other := open(t), open(t)
	Fill(t, from)
	data := Export(t, from)
	if err := into.Import(ctx, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	again := Export(t, other)
	a, err := store.ReadContent(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	a.RevokeTickets()
	var want bytes.Buffer
	if err := a.Write(&want); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, want.Bytes()) {
		t.Errorf("exported again:\n%s\nwant\n%s", again, want.Bytes())
	}
	if len(a.Servers) != 4 || len(a.Tickets) != 3 || len(a.Revoked) != 1 || len(a.Failures) != 1 || len(a.Drains) != 1 || len(a.Restarts) != 1 || len(a.Extensions) != 1 ||
		len(a.Runs) != 2 || len(a.Journal) != 4 || len(a.Outcomes) != 1 || len(a.Logins) != 3 || a.Policy != 12 || a.Use == nil || !a.Pause.On || len(a.Marks) != 1 {
		t.Errorf("the export lacks something: %s", data)
	}
	// It goes on where the other stood.
	if got := get(t, into, "a"); got.State != inventory.Serving || string(got.Health) != `{"ready":true}` || !got.Extended || !got.Deadline.Equal(now.Add(2*time.Hour)) {
		t.Errorf("got %+v", got)
	}
	if _, err := into.BeginLife(ctx, "c", 1, inventory.Draining, "", now, nil); !errors.Is(err, store.ErrHeld) {
		t.Errorf("a tainted life: got %v, want %v", err, store.ErrHeld)
	}
	if got := get(t, into, "d"); !got.Revoked {
		t.Errorf("a revoked life: got %+v", got)
	}
	last := a.Events[len(a.Events)-1].ID
	if err := into.Move(ctx, "a", 1, inventory.Serving, inventory.Draining, "x", now); err != nil {
		t.Fatal(err)
	}
	if events, err := into.Events(ctx, last); err != nil || len(events) != 1 || events[0].ID <= last {
		t.Errorf("got %v, %v", events, err)
	}
	run, ok, err := into.OpenRun(ctx)
	if err != nil || !ok || string(run.Plan) != "plan 1" {
		t.Fatalf("the open run: got %+v, %v, %v", run, ok, err)
	}
	if err := into.Record(ctx, store.Entry{Run: run.ID, Server: "a", Step: "after", At: now}); err != nil {
		t.Error(err)
	}
	if j, err := into.Journal(ctx, "a"); err != nil || len(j) != 3 || j[2].Step != "after" {
		t.Errorf("got %v, %v", j, err)
	}
	if err := into.EndRotation(ctx, store.Outcome{Server: "a", Epoch: 1, At: now}); !errors.Is(err, store.ErrEnded) {
		t.Errorf("a rotation that ended: got %v, want %v", err, store.ErrEnded)
	}
	if err := into.EndRun(ctx, run.ID, "done", now); err != nil {
		t.Error(err)
	}
	if err := into.ActUnder(ctx, 11); !errors.Is(err, store.ErrPolicyOlder) {
		t.Errorf("an older policy: got %v, want %v", err, store.ErrPolicyOlder)
	}
}

// testImportRefuses: into what is not empty, and of what is not whole, nothing is imported.
func testImportRefuses(t *testing.T, k Kind) {
	ctx, from := t.Context(), fleet(t, k)
	Fill(t, from)
	data := Export(t, from)
	if err := from.Import(ctx, bytes.NewReader(data)); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("into itself: got %v, want %v", err, store.ErrNotEmpty)
	}
	into := fleet(t, k)
	newer := bytes.Replace(data, []byte(`"version":1}`), []byte(`"version":2}`), 1)
	lines := bytes.SplitAfter(data, []byte("\n"))
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"cut off":          {data[:len(data)-len(lines[len(lines)-2])], "without its digest"},
		"a byte changed":   {bytes.Replace(data, []byte(`"disk_present"`), []byte(`"disk_absent_"`), 1), "digest"},
		"a line less":      {bytes.Join(append(append([][]byte{}, lines[:4]...), lines[5:]...), nil), "digest"},
		"a line twice":     {bytes.Join(append(append([][]byte{}, lines[:5]...), lines[4:]...), nil), "digest"},
		"more after it":    {append(append([]byte{}, data...), "{}\n"...), "comes after the last"},
		"newer":            {newer, "a newer program wrote this store"},
		"something else":   {[]byte("{}\n"), "line 1"},
		"nothing":          {nil, "without its digest"},
		"another's format": {bytes.Replace(data, []byte("mayfly-store"), []byte("mayfly-other"), 1), "no export"},
	} {
		if err := into.Import(ctx, bytes.NewReader(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if all, err := into.Servers(ctx); err != nil || len(all) != 0 {
		t.Errorf("after refusals: got %v, %v", all, err)
	}
	if err := into.Import(ctx, bytes.NewReader(data)); err != nil {
		t.Errorf("the whole: %v", err)
	}
}

// testImportRevokesTickets: of an export nobody knows which tickets were used since: none is honoured.
func testImportRevokesTickets(t *testing.T, k Kind) {
	ctx, from, into := t.Context(), fleet(t, k), fleet(t, k)
	Fill(t, from)
	if err := into.Import(ctx, bytes.NewReader(Export(t, from))); err != nil {
		t.Fatal(err)
	}
	if err := into.UseTicket(ctx, [32]byte{2}, "b", 1, now); !errors.Is(err, store.ErrTicketRevoked) {
		t.Errorf("an unused ticket: got %v, want %v", err, store.ErrTicketRevoked)
	}
	if err := into.UseTicket(ctx, [32]byte{1}, "a", 1, now); !errors.Is(err, store.ErrTicketUsed) {
		t.Errorf("a used ticket: got %v, want %v", err, store.ErrTicketUsed)
	}
	if got := get(t, into, "a"); !got.Revoked {
		t.Errorf("after its ticket came twice: got %+v", got)
	}
	if err := into.PutTicket(ctx, "b", 1, [32]byte{4}, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := into.UseTicket(ctx, [32]byte{4}, "b", 1, now); err != nil {
		t.Errorf("a new ticket: %v", err)
	}
}

// testNextLife: the number of the next life is at least what an import says, and then rises by one.
func testNextLife(t *testing.T, k Kind) {
	ctx, s := t.Context(), fleet(t, k)
	c := store.Content{Servers: []store.Record{{Server: store.Server{Name: "a", State: inventory.Serving, Epoch: 3, Since: now}, Floor: 9}}}
	var b bytes.Buffer
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	if err := s.Import(ctx, &b); err != nil {
		t.Fatal(err)
	}
	if err := s.Move(ctx, "a", 3, inventory.Serving, inventory.Draining, "", now); err != nil {
		t.Fatal(err)
	}
	from := inventory.Draining
	for _, want := range []uint64{9, 10} {
		next, err := s.BeginLife(ctx, "a", get(t, s, "a").Epoch, from, "", now, nil)
		if err != nil || next != want || get(t, s, "a").Epoch != want {
			t.Errorf("got life %d, %v, want %d", next, err, want)
		}
		if err := s.Move(ctx, "a", next, inventory.Wiping, inventory.Quarantined, "", now); err != nil {
			t.Fatal(err)
		}
		from = inventory.Quarantined
	}
}
