package plan

import "time"

// Verdict is what the gate of a train says.
type Verdict string

// Verdicts.
const (
	Bakes Verdict = "bakes" // the stage is not over
	Goes  Verdict = "goes"  // the next stage may begin
	Holds Verdict = "holds" // undecided: another batch is drawn
	Stops Verdict = "stops" // the release is bad
	Ends  Verdict = "ends"  // every server is reached: the release is good
)

// TrainState is how far a release has come.
type TrainState struct {
	Release  uint64  `json:"release"`
	From     uint64  `json:"from"`  // what servers boot that it has not reached
	Stage    string  `json:"stage"` // "internal", "canary", "10%"
	Number   int     `json:"number"`
	Stages   int     `json:"stages"`
	Reach    int     `json:"reach"` // servers that may boot it, of Servers
	Servers  int     `json:"servers"`
	Pending  int     `json:"pending"` // of those, not ended yet
	Attempts int     `json:"attempts"`
	Failed   int     `json:"failed"`
	Lower    float64 `json:"lower"` // bounds of the error rate
	Upper    float64 `json:"upper"`
	Verdict  Verdict `json:"verdict"`
	Why      string  `json:"why"`

	Until time.Time `json:"until,omitzero"` // when the stage has baked, if nothing is pending
}
