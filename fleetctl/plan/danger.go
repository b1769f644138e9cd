package plan

import "time"

// Warning is a server whose deadline is in danger.
type Warning struct {
	Server   string    `json:"server"`
	Region   string    `json:"region"`
	Deadline time.Time `json:"deadline"`
	Left     int64     `json:"left_seconds"` // until its deadline
	Reason   Reason    `json:"reason"`       // what holds it
	Why      string    `json:"why"`
}

// Danger names servers that may end themselves before they are rebuilt: due, held, and nearer to their deadline than alert; earliest
// first. An alert of 0 is half of the region's lead.
func Danger(s Snapshot, r Rules, h Health, now time.Time, alert time.Duration) []Warning {
	p, _ := Make(s, r, h, now)
	var w []Warning
	for _, x := range p.Steps {
		if left := x.Deadline.Sub(now); x.Due && !x.Now && left < alert {
			w = append(w, Warning{x.Server, x.Region, x.Deadline, int64(left / time.Second), x.Reason, x.Why})
		}
	}
	return w
}
