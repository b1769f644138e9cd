package policies

import (
	"fmt"
	"time"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// Bounds of the rotation rules. Whatever they allow, tickets, releases and servers can do: what those keep without linking
// this package (release.MaxLife, ticket.MaxAge, ticket.MaxWindow, join.MaxDrain) is held to these by a test of fleetctl/rotate.
const (
	// MaxAge is the longest life of a server.
	MaxAge = 7 * 24 * time.Hour
	// MaxDrain is the longest drain. Who has not moved by then has been told all the while: a longer wait is a server that
	// cannot be rebuilt.
	MaxDrain = 10 * time.Minute
	// MaxBoot is the longest time from power on to joined and healthy; the ticket has to live as long.
	MaxBoot = 30 * time.Minute

	minAge  = 2 * time.Minute
	minBoot = 5 * time.Second
	maxBake = 2 * time.Hour

	maxRetries  = 10
	maxParallel = 1000
	maxPerHour  = 100_000
	maxSpares   = 1000
)

// checkRotation refuses rules that must not take effect in this fleet. Whether they can be kept there is the planner's to prove.
func (p Policy) checkRotation(f inventory.Fleet) error {
	w := newWhere(f)
	for _, step := range []func() error{
		p.Rotation.checkLimits,
		func() error { return p.Rotation.checkFloors(w) },
		func() error { return p.Rotation.checkCaps(w) },
		func() error { return p.Rotation.checkWindows(w) },
		func() error { return p.Rotation.checkBlackouts(w) },
		func() error { return p.Rotation.checkTrain(w) },
		p.Rotation.checkSchedule,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// checkLimits checks the numbers that every policy with servers to rebuild has.
func (r Rotation) checkLimits() error {
	for _, d := range []struct {
		key            string
		have, min, max time.Duration
	}{
		{"max_age", r.MaxAge.Std(), minAge, MaxAge},
		{"drain_limit", r.DrainLimit.Std(), 0, MaxDrain},
		{"boot_limit", r.BootLimit.Std(), minBoot, MaxBoot},
		{"bake", r.Bake.Std(), 0, maxBake},
	} {
		if d.have < d.min || d.have > d.max {
			return tomlfile.At("rotation."+d.key, fmt.Sprintf("from %s to %s", Duration(d.min), Duration(d.max)), "rotation.%s is %s", d.key, Duration(d.have))
		}
	}
	if out := r.DrainLimit.Std() + r.BootLimit.Std() + r.Bake.Std(); out >= r.MaxAge.Std() {
		return tomlfile.At("rotation.max_age", "raise max_age or lower the limits", "one rebuild may take %s (drain_limit %s + boot_limit %s + bake %s), and max_age is only %s",
			Duration(out), r.DrainLimit, r.BootLimit, r.Bake, r.MaxAge)
	}
	if r.MaxParallel < 1 || r.MaxParallel > maxParallel {
		return tomlfile.At("rotation.max_parallel", "max_parallel = 1 is the careful choice", "rotation.max_parallel is %d: 1 to %d", r.MaxParallel, maxParallel)
	}
	if r.Retries < 0 || r.Retries > maxRetries {
		return tomlfile.At("rotation.retries", "retries = 1", "rotation.retries is %d: 0 to %d", r.Retries, maxRetries)
	}
	for _, n := range []struct {
		key       string
		have, max int
		mend      string
	}{
		{"max_per_hour", r.MaxPerHour, maxPerHour, "leave it out for no limit"},
		{"max_spares", r.MaxSpares, maxSpares, "leave it out if no spare serves"},
	} {
		if n.have < 0 || n.have > n.max {
			return tomlfile.At("rotation."+n.key, n.mend, "rotation.%s is %d: 0 to %d", n.key, n.have, n.max)
		}
	}
	return nil
}
