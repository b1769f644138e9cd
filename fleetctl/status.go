package main

import (
	"context"
	"encoding/csv"
	"io"
	"slices"
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
	Args:    "--dir DIR [--region NAME] [--state STATE] [...] [SERVER ...]",
	Summary: "show every server's state, age and deadline, and every region's capacity",
	Help: `Reads the signed inventory and the store, and changes nothing. SERVING is the capacity of servers that take users now, as the
planner counts it: they serve, their life is not over, and they were heard of as ready in the last 15 seconds.
BOOT is what is known of how the life was booted: attested (its TPM proved image, release and ticket), claimed (it says so) or
unverified (a container, which has no boot of its own).
A life whose ticket came twice is revoked: it takes no users, and the next rotate rebuilds it at once, without a drain.

Flags and names choose servers; regions are shown whole. -o wide shows all that is known of a server in its inventory, -o csv is for programs
and spreadsheets (servers only).

Example:

  fleetctl status --dir lab -o json
  fleetctl status --dir lab --region se,nl --state quarantined -o wide
  fleetctl status --dir lab --ends-within 2h`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		filter := statusFilterFlags(fs)
		output := fs.String("o", "table", "`format` of the result: table, wide, csv or json")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if !slices.Contains([]string{"table", "wide", "csv", "json"}, *output) {
			return command.Usagef("-o %q: it is table, wide, csv or json", *output)
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
		if err := filter.check(b.Inventory, fs.Args()); err != nil {
			return err
		}
		servers, err := d.servers(ctx, c)
		if err != nil {
			return err
		}
		report := newStatus(b, servers, now)
		if filter.any() {
			report.Servers = slices.DeleteFunc(report.Servers, func(s serverStatus) bool { return !filter.wants(s, now) })
		}
		if *output == "json" {
			return show(c.Stdout, *output, report, nil, nil)
		}
		heard := make(map[string]time.Time, len(servers))
		for _, s := range servers {
			heard[s.Name] = s.HealthAt
		}
		if *output == "csv" {
			return report.writeCSV(c.Stdout, heard)
		}
		return report.tables(c.Stdout, *output == "wide", heard, now)
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

	Rack       string `json:"rack"`
	Role       string `json:"role"`
	Capacity   int    `json:"capacity"` // Mbit/s
	Switch     string `json:"switch,omitempty"`
	BMCNetwork string `json:"bmc_network,omitempty"`
	Mirror     string `json:"mirror,omitempty"`
	Ring       string `json:"ring,omitempty"`
	Spare      bool   `json:"spare,omitempty"`
}

type regionStatus struct {
	Name     string `json:"name"`
	Capacity int    `json:"capacity"`
	Serving  int    `json:"serving"`
	Floor    int    `json:"floor"`
}

func newStatus(b *bundle.Bundle, servers []store.Server, now time.Time) status {
	known := make(map[string]*store.Server, len(servers))
	for i := range servers {
		known[servers[i].Name] = &servers[i]
	}
	fleet := b.Inventory
	serving, capacity := map[string]int{}, map[string]int{}
	region := make(map[string]string, len(servers)) // of each server; Fleet.RegionOf looks through all
	snapshot, heard := rotate.Snapshot(b, 0, servers)
	for _, s := range snapshot.Servers {
		region[s.Name] = s.Region
		if s.Serves(heard, now) {
			serving[s.Region] += s.Capacity
		}
	}
	r := status{Servers: []serverStatus{}, Regions: []regionStatus{}}
	for _, x := range fleet.Rebuilt() {
		k := known[x.Name]
		if k == nil {
			k = &store.Server{Name: x.Name, State: inventory.New}
		}
		s := serverStatus{Name: x.Name, Region: region[x.Name], State: k.State, Epoch: k.Epoch, Revoked: k.Revoked, Release: k.Release, BootID: k.BootID, Evidence: k.Evidence, Cause: k.Cause,
			Rack: x.Rack, Role: x.Role, Capacity: x.Capacity, Switch: x.Switch, BMCNetwork: x.BMCNetwork, Mirror: x.Mirror, Ring: x.Ring, Spare: x.Spare}
		deadline := rotate.Deadline(*k, time.Duration(b.Policy.Rotation.MaxAge))
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
		capacity[s.Region] += x.Capacity
	}
	for i, g := range fleet.Regions {
		r.Regions = append(r.Regions, regionStatus{g.Name, capacity[g.Name], serving[g.Name], snapshot.Regions[i].Floor})
	}
	return r
}

func (r status) tables(w io.Writer, wide bool, heard map[string]time.Time, now time.Time) error {
	header := []string{"SERVER", "REGION", "STATE", "LIFE", "AGE", "LEFT", "RELEASE", "BOOT", "HEARD", "CAUSE"}
	if wide {
		header = wideColumns
	}
	var rows [][]string
	for _, s := range r.Servers {
		row := s.wide(now, heard[s.Name])
		if !wide {
			row = []string{s.Name, s.Region, s.shown(), strconv.FormatUint(s.Epoch, 10), s.age(), s.end(now), s.Release, s.proof(), lastWord(heard[s.Name], now), s.Cause}
		}
		rows = append(rows, row)
	}
	if err := show(w, "table", nil, header, rows); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	rows = nil
	for _, g := range r.Regions {
		rows = append(rows, []string{g.Name, strconv.Itoa(g.Capacity), strconv.Itoa(g.Serving), strconv.Itoa(g.Floor)})
	}
	return show(w, "table", nil, []string{"REGION", "CAPACITY", "SERVING", "FLOOR"}, rows)
}

// writeCSV writes the servers as RFC 4180.
func (r status) writeCSV(w io.Writer, heard map[string]time.Time) error {
	out := csv.NewWriter(w)
	rows := [][]string{csvColumns}
	for _, s := range r.Servers {
		rows = append(rows, s.csv(heard[s.Name]))
	}
	return out.WriteAll(rows)
}

func (s serverStatus) shown() string {
	shown := string(s.State)
	if s.Revoked {
		shown += ", revoked"
	}
	if s.Tainted {
		shown += ", tainted"
	}
	return shown
}

func (s serverStatus) age() string {
	if s.AgeSeconds <= 0 {
		return "-"
	}
	return (time.Duration(s.AgeSeconds) * time.Second).String()
}

func (s serverStatus) end(now time.Time) string {
	if s.Deadline == nil {
		return "-"
	}
	return left(*s.Deadline, now)
}

func (s serverStatus) proof() string {
	if s.Evidence == "" {
		return "-"
	}
	return s.Evidence
}

// lastWord is how long ago a server was heard of.
func lastWord(at, now time.Time) string {
	if at.IsZero() {
		return "never"
	}
	ago := now.Sub(at).Round(time.Second).String() + " ago"
	if now.Sub(at) > plan.FreshFor {
		return "silent, " + ago
	}
	return ago
}
