package policies

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"mayfly/internal/tomlfile"
)

// Bounds of windows and blackouts.
const (
	maxRotationWindows = 64
	maxBlackouts       = 256
	maxBlackout        = 31 * 24 * time.Hour
	maxZone            = 64
)

// zoneName is the form of the IANA time zone database's names. Whether there is such a zone is known where the database is linked.
var zoneName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*)*$`)

// Minutes returns the minutes of the day at which the window opens and closes.
func (w RotationWindow) Minutes() (from, to int) {
	from, _ = minuteOfDay(w.From)
	to, _ = minuteOfDay(w.To)
	return from, to
}

// Weekdays returns the window's days.
func (w RotationWindow) Weekdays() []time.Weekday {
	var days []time.Weekday
	for _, d := range w.Days {
		if i := slices.Index(weekdays, d); i >= 0 {
			days = append(days, time.Weekday(i))
		}
	}
	return days
}

func (r Rotation) checkWindows(w where) error {
	if len(r.Windows) > maxRotationWindows {
		return tomlfile.At("rotation.window", "join them", "%d windows: at most %d", len(r.Windows), maxRotationWindows)
	}
	for i, x := range r.Windows {
		path := fmt.Sprintf("rotation.window[%d]", i)
		if err := w.checkRegions(path, x.Regions); err != nil {
			return err
		}
		if err := checkDays(path, x.Days); err != nil {
			return err
		}
		if err := checkTimes(path, x.From, x.To, "by the clocks of the window's zone"); err != nil {
			return err
		}
		if x.Zone != "" && (len(x.Zone) > maxZone || !zoneName.MatchString(x.Zone) || strings.EqualFold(x.Zone, "local")) {
			return tomlfile.At(path+".zone", `zone = "Europe/Stockholm", or leave it out for UTC`, "zone %q is no name of a time zone: the clocks of a machine or an offset are nobody's place", x.Zone)
		}
		if slices.ContainsFunc(r.Windows[:i], func(o RotationWindow) bool {
			return o.From == x.From && o.To == x.To && o.Zone == x.Zone && slices.Equal(o.Days, x.Days) && slices.Equal(o.Regions, x.Regions)
		}) {
			return tomlfile.At(path, "each window once", "the window is there twice")
		}
	}
	return nil
}

func (r Rotation) checkBlackouts(w where) error {
	if len(r.Blackouts) > maxBlackouts {
		return tomlfile.At("rotation.blackout", "remove those that have passed", "%d blackouts: at most %d", len(r.Blackouts), maxBlackouts)
	}
	for i, x := range r.Blackouts {
		path := fmt.Sprintf("rotation.blackout[%d]", i)
		if !word.MatchString(x.Name) {
			return tomlfile.At(path+".name", `for example name = "year-end"`, "blackout name %q is no lower-case word", x.Name)
		}
		if slices.ContainsFunc(r.Blackouts[:i], func(o Blackout) bool { return o.Name == x.Name }) {
			return tomlfile.At(path+".name", "each name once", "blackout %q is there twice", x.Name)
		}
		if err := w.checkRegions(path, x.Regions); err != nil {
			return err
		}
		for _, t := range []struct {
			key string
			at  time.Time
		}{{"from", x.From}, {"to", x.To}} {
			if t.at.IsZero() {
				return tomlfile.At(path+"."+t.key, "write date, time and offset, for example 2027-01-01T00:00:00Z", "blackout %q has no %s", x.Name, t.key)
			}
		}
		if !x.From.Before(x.To) {
			return tomlfile.At(path+".to", "a blackout ends after it begins", "blackout %q ends at %s, not after it begins at %s", x.Name, x.To.UTC().Format(time.RFC3339), x.From.UTC().Format(time.RFC3339))
		}
		if d := x.To.Sub(x.From); d > maxBlackout {
			return tomlfile.At(path+".to", "a longer stop is fleetctl pause, which a person takes back", "blackout %q lasts %s: at most %s", x.Name, Duration(d), Duration(maxBlackout))
		}
	}
	return nil
}
