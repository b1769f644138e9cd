package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
)

var statusVerb = command.Verb{
	Name:    "status",
	Args:    "--dir DIR",
	Summary: "show every server's state, age and deadline, and every region's capacity",
	Help: `Reads the signed inventory and the store, and changes nothing. SERVING is the capacity of servers that take users now, as the
planner counts it: they serve, their life is not over, and they were heard of as ready in the last 15 seconds.
BOOT is what is known of how the life was booted: attested (its TPM proved image, release and ticket), claimed (it says so) or
unverified (a container, which has no boot of its own).
A life whose ticket came twice is revoked: it takes no users, and the next rotate rebuilds it at once, without a drain.

Example:

  fleetctl status --dir lab -o json`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		d, now := state(*dir), time.Now()
		t, _, err := d.trust()
		if err != nil {
			return err
		}
		seen, err := d.policySeen(ctx)
		if err != nil {
			return err
		}
		b, err := d.bundle(t, seen, now)
		if err != nil {
			return err
		}
		servers, err := d.servers(ctx, c)
		if err != nil {
			return err
		}
		report := newStatus(b, servers, now)
		if *output == "json" {
			return show(c.Stdout, *output, report, nil, nil)
		}
		return report.tables(c, servers, now)
	},
}

// status is what `fleetctl status -o json` prints. Its fields stay.
type status struct {
	Servers []serverStatus `json:"servers"`
	Regions []regionStatus `json:"regions"`
}

type serverStatus struct {
	Name       string          `json:"name"`
	Region     string          `json:"region"`
	State      inventory.State `json:"state"`
	Epoch      uint64          `json:"epoch"`
	AgeSeconds int64           `json:"age_seconds"` // of the present life; 0 before the first and while it is off
	Deadline   *time.Time      `json:"deadline"`    // null when it has none
	Release    string          `json:"release"`
	BootID     string          `json:"boot_id"`
	Evidence   string          `json:"evidence"` // "attested", "claimed" or "unverified"; "" before it has joined
	Cause      string          `json:"cause"`
	Revoked    bool            `json:"revoked"`    // the life's ticket came twice: it takes no users
	Tainted    bool            `json:"tainted"`    // an engineer was let onto this life: it is rebuilt before it serves again
	HeldUntil  *time.Time      `json:"held_until"` // the engineer may be on it until then; null if it is not tainted
}

type regionStatus struct {
	Name     string `json:"name"`
	Capacity int    `json:"capacity"`
	Serving  int    `json:"serving"`
	Floor    int    `json:"floor"`
}

func newStatus(b *bundle.Bundle, servers []store.Server, now time.Time) status {
	known := map[string]store.Server{}
	for _, s := range servers {
		known[s.Name] = s
	}
	fleet := b.Inventory
	serving := map[string]int{}
	snapshot, heard := rotate.Snapshot(b, 0, servers)
	for _, s := range snapshot.Servers {
		if s.Serves(heard, now) {
			serving[s.Region] += s.Capacity
		}
	}
	r := status{Servers: []serverStatus{}, Regions: []regionStatus{}}
	for _, x := range fleet.Rebuilt() {
		k, ok := known[x.Name]
		if !ok {
			k = store.Server{Name: x.Name, State: inventory.New}
		}
		s := serverStatus{Name: x.Name, Region: fleet.RegionOf(x.Name), State: k.State, Epoch: k.Epoch, Revoked: k.Revoked, Release: k.Release, BootID: k.BootID, Evidence: k.Evidence, Cause: k.Cause}
		deadline := rotate.Deadline(k, time.Duration(b.Policy.Rotation.MaxAge))
		if !deadline.IsZero() {
			s.Deadline = &deadline
		}
		if s.Tainted = k.Tainted; k.Tainted {
			s.HeldUntil = &k.HeldUntil
		}
		if !k.BootedAt.IsZero() {
			s.AgeSeconds = int64(now.Sub(k.BootedAt) / time.Second)
		}
		r.Servers = append(r.Servers, s)
	}
	for _, g := range fleet.Regions {
		total := fleet.Capacity(g.Name)
		r.Regions = append(r.Regions, regionStatus{g.Name, total, serving[g.Name], g.Floor.Of(total)})
	}
	return r
}

func (r status) tables(c *command.Call, servers []store.Server, now time.Time) error {
	heard := map[string]time.Time{}
	for _, s := range servers {
		heard[s.Name] = s.HealthAt
	}
	var rows [][]string
	for _, s := range r.Servers {
		age, end := "-", "-"
		if s.AgeSeconds > 0 {
			age = (time.Duration(s.AgeSeconds) * time.Second).String()
		}
		if s.Deadline != nil {
			end = left(*s.Deadline, now)
		}
		word := "never"
		if at := heard[s.Name]; !at.IsZero() {
			word = now.Sub(at).Round(time.Second).String() + " ago"
			if now.Sub(at) > plan.FreshFor {
				word = "silent, " + word
			}
		}
		shown := string(s.State)
		if s.Revoked {
			shown += ", revoked"
		}
		if s.Tainted {
			shown += ", tainted"
		}
		proof := s.Evidence
		if proof == "" {
			proof = "-"
		}
		rows = append(rows, []string{s.Name, s.Region, shown, strconv.FormatUint(s.Epoch, 10), age, end, s.Release, proof, word, s.Cause})
	}
	if err := show(c.Stdout, "table", nil, []string{"SERVER", "REGION", "STATE", "LIFE", "AGE", "LEFT", "RELEASE", "BOOT", "HEARD", "CAUSE"}, rows); err != nil {
		return err
	}
	if _, err := c.Stdout.Write([]byte("\n")); err != nil {
		return err
	}
	rows = nil
	for _, g := range r.Regions {
		rows = append(rows, []string{g.Name, strconv.Itoa(g.Capacity), strconv.Itoa(g.Serving), strconv.Itoa(g.Floor)})
	}
	return show(c.Stdout, "table", nil, []string{"REGION", "CAPACITY", "SERVING", "FLOOR"}, rows)
}
