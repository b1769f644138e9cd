package store

import (
	"slices"
	"testing"
	"time"

	"mayfly/inventory"
)

// TestTakeUp: of each life what the signer knows of it, and nothing that it does not.
func TestTakeUp(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	had := Record{Server: Server{Name: "a", State: inventory.Serving, Epoch: 3, TLSKey: "k3", Deadline: now}}
	known := Admitted{Server: "a", Epoch: 4, Signed: 4, TLSKey: "k4", HostKey: "h", TunnelKey: "t", BootID: "b", Evidence: "attested", Began: now, Joined: now, Ends: now.Add(time.Hour)}
	with := func(change func(*Admitted)) map[string]Admitted {
		v := known
		change(&v)
		return map[string]Admitted{"a": v}
	}
	for _, tt := range []struct {
		name    string
		lives   map[string]Admitted
		epoch   uint64
		state   inventory.State
		key     string
		floor   uint64
		newer   bool
		between bool
		unknown bool
		check   func(*Content) bool
	}{
		{"nothing is known", nil, 3, inventory.Serving, "k3", 515, false, false, false, nil},
		{"not this one", map[string]Admitted{}, 3, inventory.Serving, "k3", 515, false, false, true, nil},
		{"the same life", with(func(v *Admitted) { v.Epoch, v.Signed, v.TLSKey = 3, 3, "k3" }), 3, inventory.Serving, "k3", 4, false, false, false, nil},
		{"goes on", with(func(v *Admitted) { v.Epoch, v.Signed, v.TLSKey, v.Extended = 3, 3, "k3", true }), 3, inventory.Serving, "k3", 4, false, false, false,
			func(c *Content) bool {
				return c.Servers[0].Extended && c.Servers[0].Deadline.Equal(known.Ends) && len(c.Extensions) == 1
			}},
		{"the same life, and an engineer", with(func(v *Admitted) { v.Epoch, v.Signed, v.TLSKey, v.Held = 3, 3, "k3", now }), 3, inventory.Draining, "k3", 4, false, false, false,
			func(c *Content) bool { return c.Servers[0].Tainted }},
		{"the same life, revoked", with(func(v *Admitted) { v.Epoch, v.Signed, v.TLSKey, v.Revoked = 3, 3, "k3", true }), 3, inventory.Serving, "k3", 4, false, false, false,
			func(c *Content) bool { return len(c.Revoked) == 1 }},
		{"newer", with(func(*Admitted) {}), 4, inventory.Serving, "k4", 5, true, false, false, func(c *Content) bool { return !c.Pause.On }},
		{"the same number, another machine", with(func(v *Admitted) { v.Epoch, v.Signed = 3, 3 }), 3, inventory.Serving, "k4", 4, true, false, false, nil},
		{"newer, of a new release", with(func(v *Admitted) { v.Release = "9" }), 4, inventory.Serving, "k4", 5, true, false, false, func(c *Content) bool { return c.Pause.On }},
		{"newer, extended", with(func(v *Admitted) { v.Extended = true }), 4, inventory.Serving, "k4", 5, true, false, false,
			func(c *Content) bool { return c.Servers[0].Extended && c.Extensions[0].Value.Epoch == 4 }},
		{"newer, an engineer on it", with(func(v *Admitted) { v.Held = now.Add(time.Hour) }), 4, inventory.Draining, "k4", 5, true, false, false,
			func(c *Content) bool { return c.Servers[0].Tainted && c.Servers[0].HeldUntil.Equal(now.Add(time.Hour)) }},
		{"newer, revoked", with(func(v *Admitted) { v.Revoked = true }), 4, inventory.Serving, "k4", 5, true, false, false, func(c *Content) bool { return len(c.Revoked) == 1 }},
		{"newer, of an older signer", with(func(v *Admitted) { v.BootID = "" }), 3, inventory.Serving, "k3", 5, false, false, true, nil},
		{"between two lives", with(func(v *Admitted) { v.Signed = 6 }), 6, inventory.Quarantined, "", 7, false, true, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Content{Use: &Use{Version: 7}, Servers: []Record{had}, Runs: []Run{{ID: 1, Began: now}}}
			got := c.TakeUp(tt.lives, now)
			s := c.Servers[0]
			if s.Epoch != tt.epoch || s.State != tt.state || s.TLSKey != tt.key || s.Floor != tt.floor {
				t.Errorf("got life %d, %s, key %q, next %d", s.Epoch, s.State, s.TLSKey, s.Floor)
			}
			if slices.Contains(got.Newer, "a") != tt.newer || slices.Contains(got.Between, "a") != tt.between || slices.Contains(got.Unknown, "a") != tt.unknown || got.Lost != (tt.lives == nil) {
				t.Errorf("got %+v", got)
			}
			if tt.check != nil && !tt.check(c) {
				t.Errorf("got %+v", c)
			}
			if c.Runs[0].Ended.IsZero() {
				t.Error("the run is open")
			}
			if err := c.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}
