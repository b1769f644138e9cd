package main

import (
	"fmt"
	"time"
	_ "time/tzdata" // the zones of rotation windows, where the host has no database of them; only fleetctl links it

	"mayfly/internal/tomlfile"
	"mayfly/policies"
)

// zones loads the time zones of the policy's windows. One that nobody knows is not among them: the planner takes its window for closed.
func zones(r policies.Rotation) map[string]*time.Location {
	list := map[string]*time.Location{"": time.UTC}
	for _, w := range r.Windows {
		if z, err := time.LoadLocation(w.Zone); err == nil {
			list[w.Zone] = z
		}
	}
	return list
}

// zonesExist refuses a policy with a window in a place that the time zone database does not have.
func zonesExist(p policies.Policy) error {
	known := zones(p.Rotation)
	for i, w := range p.Rotation.Windows {
		if known[w.Zone] == nil {
			return tomlfile.At(fmt.Sprintf("rotation.window[%d].zone", i), `zone = "Europe/Stockholm", or leave it out for UTC`, "zone %q is not in the time zone database", w.Zone)
		}
	}
	return nil
}

// clock writes a moment by the clocks of a zone and in UTC: people plan by the one, machines by the other.
func clock(t time.Time, zone *time.Location) string {
	if t.IsZero() {
		return "-"
	}
	utc := t.UTC().Format("Mon 2006-01-02 15:04 MST")
	if zone == nil || zone == time.UTC {
		return utc
	}
	local := t.In(zone)
	if _, offset := local.Zone(); offset == 0 && zone.String() == "UTC" {
		return utc
	}
	return local.Format("Mon 2006-01-02 15:04 ") + zone.String() + " (" + utc + ")"
}
