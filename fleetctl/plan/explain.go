package plan

import "time"

// Explanation is why one server goes now, or why not.
type Explanation struct {
	Step  Step      `json:"step"`
	Rules []string  `json:"rules"`          // every rule that is looked at, with its numbers, and whether it lets the server go
	Early time.Time `json:"due,omitzero"`   // when it becomes due
	Opens time.Time `json:"opens,omitzero"` // when its window opens next, if it is closed
	Late  time.Time `json:"late,omitzero"`  // when it goes at the latest, if nothing breaks
	Zone  string    `json:"zone,omitempty"` // of its window
	Text  string    `json:"text"`           // all of it in words
}

// Explain says why a server goes now, or why not, with the numbers, and when it goes at the latest. False: no such server.
func Explain(s Snapshot, r Rules, h Health, now time.Time, server string) (Explanation, Refusals, bool) {
	p, refused := Make(s, r, h, now)
	for _, x := range p.Steps {
		if x.Server == server {
			return Explanation{Step: x, Text: x.Why}, refused, true
		}
	}
	return Explanation{}, refused, false
}
