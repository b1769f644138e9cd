package simulate

import (
	"time"

	"mayfly/fleetctl/plan"
)

// Result is what happened.
type Result struct {
	Fleet       string            `json:"fleet"`
	Servers     int               `json:"servers"`
	Start       time.Time         `json:"start"`
	End         time.Time         `json:"end"`
	Days        int               `json:"days"`
	Seed        uint64            `json:"seed"`
	MaxAge      time.Duration     `json:"max_age"`
	Rotations   int               `json:"rotations"` // that ended with the server serving
	Failures    int               `json:"failures"`  // boots that failed
	Quarantines int               `json:"quarantines"`
	Forced      int               `json:"forced"`    // left though a window was closed or max_per_hour was reached
	Broken      int               `json:"broken"`    // planned removals that broke a floor
	Passed      int               `json:"passed"`    // servers that met their deadline before they could leave
	WorstAge    time.Duration     `json:"worst_age"` // of a server that left, since its life began
	MostOut     int               `json:"most_out"`
	InFlight    int               `json:"in_flight"` // at the end
	Regions     []Region          `json:"regions"`
	Samples     []Sample          `json:"samples"`
	Train       []plan.TrainState `json:"train,omitempty"` // each stage as it ended, of every release
	Done        time.Time         `json:"done,omitzero"`   // when the last release had reached everything, and was good
}

// Region is the least that a region had.
type Region struct {
	Name     string    `json:"name"`
	Capacity int       `json:"capacity"`
	Floor    int       `json:"floor"`
	Least    int       `json:"least"` // capacity that served, at the worst moment
	LeastAt  time.Time `json:"least_at"`
}

// Sample is the fleet at one moment of the chart.
type Sample struct {
	At       time.Time     `json:"at"`
	Capacity float64       `json:"capacity"` // that serves, as share of the fleet's
	Margin   float64       `json:"margin"`   // of the region with the least: what serves over its floor, as share of its capacity
	Age      time.Duration `json:"age"`      // of the oldest server that serves
	Out      int           `json:"out"`
}
