package signer

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/policies/statement"
	"mayfly/rebuild/join"
	"mayfly/tunnel/checkin"
)

// TestDrained: a statement only about the present life, and nothing that would contradict it while it is in force.
func TestDrained(t *testing.T) {
	f := newFleet(t)
	now := time.Now().UTC().Truncate(time.Second)
	m := newMachine(t)
	var s *server
	restart := func() { // what counts survives
		t.Helper()
		if s != nil {
			if err := s.log.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if s, err = open(f.dir); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	defer func() {
		if err := s.log.Close(); err != nil {
			t.Error(err)
		}
	}()
	end := now.Add(30 * time.Minute)
	ask := func(server string, epoch uint64, expires time.Time) error {
		_, err := s.drained(drainedRequest{Server: server, Epoch: epoch, Expires: expires}, now)
		return err
	}
	begin := func(epoch uint64, at time.Time) error {
		signed, err := s.ticket(f.newTicket(t, epoch), at)
		if err == nil {
			_, err = s.admit(m.request(signed.Data, signed.Signature), at)
		}
		return err
	}
	refuse := func(what string, err error, want string) {
		t.Helper()
		if reason(err) != want {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	refuse("no life yet", ask("se-1", 1, end), join.LifeUnknown)
	early, err := s.ticket(f.newTicket(t, 1), now) // a second ticket of life 1, kept back
	if err != nil {
		t.Fatal(err)
	}
	if err := begin(1, now); err != nil {
		t.Fatal(err)
	}
	refuse("life 0", ask("se-1", 0, end), join.RequestInvalid)
	refuse("another life", ask("se-1", 2, end), join.LifeUnknown)
	refuse("no server", ask("se-9", 1, end), join.ServerUnknown)
	refuse("no name", ask("../se-1", 1, end), join.ServerUnknown)
	refuse("too long", ask("se-1", 1, now.Add(statement.MaxDrained+time.Second)), join.LifetimeTooLong)
	refuse("backwards", ask("se-1", 1, now), join.LifetimeTooLong)
	if _, err := s.drained(drainedRequest{Server: "se-1", Epoch: 1, Expires: now.Add(90 * time.Minute)}, now.Add(40*time.Minute)); reason(err) != join.LifeOver {
		t.Errorf("longer than the life: got %v", err)
	}

	list := checkin.List{Kind: "mayfly-list/1", Fleet: "lab", Issued: now, Expires: now.Add(2 * time.Minute), Servers: []checkin.Server{
		{Name: "se-1.lab.test", Region: "se", Address: netip.MustParseAddr("10.77.0.11"), Register: 7443}}}
	if _, err := s.list(list, now); err != nil {
		t.Fatal(err)
	}
	signed, err := s.drained(drainedRequest{Server: "se-1", Epoch: 1, Expires: end}, now)
	if err != nil {
		t.Fatal(err)
	}
	o, err := statement.Open(s.rules.trust, signed.Data, signed.Signature, now)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := o.Statement.(statement.Drained); !ok || d.Server != "se-1" || d.Epoch != 1 || !d.Expires.Equal(end) || d.Fleet != "lab" {
		t.Errorf("signed %+v", o.Statement)
	}

	restart()
	_, err = s.list(list, now)
	refuse("a list that names it", err, join.LifeDrained)
	list.Servers = nil
	if _, err := s.list(list, now); err != nil {
		t.Errorf("a list without it: %v", err)
	}
	_, err = s.ticket(f.newTicket(t, 1), now)
	refuse("another ticket of this life", err, join.LifeDrained)
	_, err = s.ticket(f.newTicket(t, 2), now)
	refuse("a ticket of the next life", err, join.LifeDrained)
	_, err = s.admit(m.request(early.Data, early.Signature), now)
	refuse("a ticket of this life that was out", err, join.LifeDrained)
	late := f.newTicket(t, 1)
	late.NotAfter = end.Add(time.Minute)
	_, err = s.ticket(late, end)
	refuse("another ticket of this life, after the statement", err, join.LifeDrained)

	next := f.newTicket(t, 2)
	next.NotAfter = end.Add(time.Minute)
	fresh, err := s.ticket(next, end)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.drained(drainedRequest{Server: "se-1", Epoch: 1, Expires: end.Add(10 * time.Minute)}, end)
	refuse("with a later life's ticket out", err, join.TicketAhead)
	if _, err := s.admit(m.request(fresh.Data, fresh.Signature), end); err != nil {
		t.Errorf("the next life, after the statement's end: %v", err)
	}
	restart()
	list.Issued, list.Expires = end, end.Add(time.Minute)
	list.Servers = []checkin.Server{{Name: "se-1.lab.test", Region: "se", Address: netip.MustParseAddr("10.77.0.11"), Register: 7443}}
	if _, err := s.list(list, end); err != nil {
		t.Errorf("a list that names the rebuilt server: %v", err)
	}
	n := 0
	if _, err := audit.Read(filepath.Join(f.dir, keyDir, logDir), 0, func(_ uint64, line []byte) error {
		if strings.Contains(string(line), `"event":"drained"`) {
			n++
		}
		return nil
	}); err != nil || n != 1 {
		t.Errorf("%d records of drained statements, %v; want 1", n, err)
	}
}

func TestDrainedRate(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	m := newMachine(t)
	signed, err := s.ticket(f.newTicket(t, 1), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.admit(m.request(signed.Data, signed.Signature), now); err != nil {
		t.Fatal(err)
	}
	for range drainsPerHour {
		if _, err := s.drained(drainedRequest{Server: "se-1", Epoch: 1, Expires: now.Add(time.Minute)}, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.drained(drainedRequest{Server: "se-1", Epoch: 1, Expires: now.Add(time.Minute)}, now); reason(err) != join.RateLimited {
		t.Errorf("got %v, want %s", err, join.RateLimited)
	}
}
