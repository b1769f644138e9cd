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
	Days        int               `json:"days"`
	Seed        uint64            `json:"seed"`
	Rotations   int               `json:"rotations"` // begun and ended
	Failures    int               `json:"failures"`  // boots that failed
	Quarantines int               `json:"quarantines"`
	Broken      int               `json:"broken"`    // planned removals that broke a floor
	Passed      int               `json:"passed"`    // servers that met their deadline before they were rebuilt
	WorstAge    time.Duration     `json:"worst_age"` // of a server that left
	MostOut     int               `json:"most_out"`
	Regions     []Region          `json:"regions"`
	Samples     []Sample          `json:"samples"`
	Train       []plan.TrainState `json:"train,omitempty"` // each stage as it ended
}

// Region is the least that a region had.
type Region struct {
	Name     string    `json:"name"`
	Capacity int       `json:"capacity"`
	Floor    int       `json:"floor"`
	Least    int       `json:"least"` // capacity that served, at the worst moment
	LeastAt  time.Time `json:"least_at"`
}

// Sample is the fleet at one moment of the chart, or between it and the one before.
type Sample struct {
	At       time.Time     `json:"at"`
	Capacity float64       `json:"capacity"` // least of all regions, as share of its capacity
	Margin   float64       `json:"margin"`   // least of all regions, over its floor, as share of its capacity
	Age      time.Duration `json:"age"`      // of the oldest server that served
	Out      int           `json:"out"`
}

// Text draws the result with letters.
func (r Result) Text() string { return "" }

// SVG draws the result as an image.
func (r Result) SVG() []byte { return nil }
