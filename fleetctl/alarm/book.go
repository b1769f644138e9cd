package alarm

import (
	"cmp"
	"slices"
	"time"
)

// Quiet is how long an alarm has to be gone before it is over: what comes and goes is said once.
const Quiet = time.Minute

// Book remembers which alarms were said. The zero value has none.
type Book struct{ open map[key]entry }

type key struct {
	kind    Kind
	subject string
}

type entry struct {
	alarm Alarm
	seen  time.Time
}

// Update takes what Evaluate said at now, and returns what is new and what is over.
func (b *Book) Update(all []Alarm, now time.Time) (begun, over []Alarm) {
	if b.open == nil {
		b.open = map[key]entry{}
	}
	for _, a := range all {
		k := key{a.Kind, a.Subject}
		e, known := b.open[k]
		if a.Since = e.alarm.Since; !known {
			a.Since = now
			begun = append(begun, a)
		}
		b.open[k] = entry{a, now}
	}
	for k, e := range b.open {
		if gone := now.Sub(e.seen); gone >= Quiet || gone < 0 { // a clock that went back ends what it cannot judge; it is said again
			delete(b.open, k)
			over = append(over, e.alarm)
		}
	}
	slices.SortFunc(over, order)
	return begun, over
}

// Open are the alarms that are not over.
func (b *Book) Open() []Alarm {
	var all []Alarm
	for _, e := range b.open {
		all = append(all, e.alarm)
	}
	slices.SortFunc(all, order)
	return all
}

func order(a, b Alarm) int {
	return cmp.Or(slices.Index(Kinds, a.Kind)-slices.Index(Kinds, b.Kind), cmp.Compare(a.Subject, b.Subject))
}
