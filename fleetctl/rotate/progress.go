package rotate

import (
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

// Progress is how far a run is.
type Progress struct {
	Run    int64      `json:"run"`
	At     time.Time  `json:"at"`
	Plan   plan.Plan  `json:"plan"`
	Left   int        `json:"left"` // servers that are to leave yet
	Ended  int        `json:"ended"`
	Halted string     `json:"halted,omitempty"` // why nothing more begins
	Under  []Underway `json:"under"`
}

// Underway is a server between leaving and serving.
type Underway struct {
	Name   string          `json:"name"`
	Region string          `json:"region"`
	State  inventory.State `json:"state"`
	Epoch  uint64          `json:"epoch"`
	Since  time.Time       `json:"since"`
	Here   bool            `json:"here"` // this process carries it
}

// show tells how far the run is.
func (w *work) show(now reading) {
	if w.Show == nil {
		return
	}
	p := Progress{Run: w.result.Run, At: time.Now(), Plan: w.plan, Left: len(w.plan.Targets()), Ended: len(w.result.Servers), Halted: w.why}
	for _, s := range now.servers {
		if s.State.InFlight() {
			p.Under = append(p.Under, Underway{s.Name, w.Bundle.Inventory.RegionOf(s.Name), s.State, s.Epoch, s.Since, w.lives[s.Name]})
		}
	}
	w.Show(p)
}
