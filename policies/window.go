package policies

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/tomlfile"
)

// Window is a time of the week, in UTC, in which a grant holds: from From until before To on each of the days. One that goes
// over midnight is written as two.
type Window struct {
	Days []string `toml:"days" json:"days"` // "mon" to "sun"
	From string   `toml:"from" json:"from"` // "08:00"
	To   string   `toml:"to" json:"to"`     // "18:00", at the latest "24:00"
}

// maxWindows of one grant.
const maxWindows = 16

// weekdays in the order of time.Weekday.
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// minuteOfDay reads "HH:MM".
func minuteOfDay(s string) (int, bool) {
	if s == "24:00" {
		return 24 * 60, true
	}
	t, err := time.Parse("15:04", s)
	if err != nil || t.Format("15:04") != s {
		return 0, false
	}
	return t.Hour()*60 + t.Minute(), true
}

// bounds are where the window begins and ends on the day of t, if it is open on that day at all.
func (w Window) bounds(t time.Time) (from, to time.Time, ok bool) {
	t = t.UTC()
	f, okFrom := minuteOfDay(w.From)
	u, okTo := minuteOfDay(w.To)
	if !okFrom || !okTo || f >= u || !slices.Contains(w.Days, weekdays[t.Weekday()]) {
		return from, to, false
	}
	midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return midnight.Add(time.Duration(f) * time.Minute), midnight.Add(time.Duration(u) * time.Minute), true
}

// holds reports whether the window is open.
func (w Window) holds(now time.Time) bool {
	from, to, ok := w.bounds(now)
	return ok && !now.Before(from) && now.Before(to)
}

// next is when the window opens or closes next.
func (w Window) next(now time.Time) (time.Time, bool) {
	for day := range 8 {
		from, to, ok := w.bounds(now.UTC().AddDate(0, 0, day))
		switch {
		case !ok:
		case from.After(now):
			return from, true
		case to.After(now):
			return to, true
		}
	}
	return time.Time{}, false
}

// inWindow reports whether the grant holds at this time of the week. Without windows it always does.
func (g Grant) inWindow(now time.Time) bool {
	return len(g.Windows) == 0 || slices.ContainsFunc(g.Windows, func(w Window) bool { return w.holds(now) })
}

func checkWindows(path string, windows []Window) error {
	if len(windows) > maxWindows {
		return tomlfile.At(path, "join them", "%d windows: at most %d", len(windows), maxWindows)
	}
	for i, w := range windows {
		at := fmt.Sprintf("%s.window[%d]", path, i)
		if err := checkDays(at, w.Days); err != nil {
			return err
		}
		if err := checkTimes(at, w.From, w.To, "in UTC"); err != nil {
			return err
		}
		if slices.ContainsFunc(windows[:i], func(o Window) bool {
			return o.From == w.From && o.To == w.To && strings.Join(o.Days, " ") == strings.Join(w.Days, " ")
		}) {
			return tomlfile.At(at, "each window once", "the window is there twice")
		}
	}
	return nil
}

func checkDays(path string, days []string) error {
	if len(days) == 0 {
		return tomlfile.At(path, `for example days = ["mon", "tue", "wed", "thu", "fri"]`, "the window has no days: empty never means every day")
	}
	for j, d := range days {
		if !slices.Contains(weekdays, d) {
			return tomlfile.At(fmt.Sprintf("%s.days[%d]", path, j), "mon, tue, wed, thu, fri, sat or sun", "day %q does not exist", d)
		}
		if slices.Contains(days[:j], d) {
			return tomlfile.At(fmt.Sprintf("%s.days[%d]", path, j), "each day once", "day %q is there twice", d)
		}
	}
	return nil
}

// checkTimes checks when a window opens and closes; clocks says by which.
func checkTimes(path, opens, closes, clocks string) error {
	from, ok := minuteOfDay(opens)
	if !ok || from == 24*60 {
		return tomlfile.At(path+".from", `from = "08:00", `+clocks, "from is %q, no time of day", opens)
	}
	to, ok := minuteOfDay(closes)
	if !ok {
		return tomlfile.At(path+".to", `to = "18:00", `+clocks+`; at the latest "24:00"`, "to is %q, no time of day", closes)
	}
	if from >= to {
		return tomlfile.At(path+".to", `write two windows for one that goes over midnight: to = "24:00", and from = "00:00" on the next day`, "the window ends at %s, not after it begins at %s", closes, opens)
	}
	return nil
}
