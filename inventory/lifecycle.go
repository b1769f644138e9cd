package inventory

// State is where a server is in its life.
type State string

const (
	New         State = "new"         // never booted by this controller
	Serving     State = "serving"     // takes users
	Draining    State = "draining"    // takes no new users, its own are leaving
	Wiping      State = "wiping"      // being powered off and read back as off
	Booting     State = "booting"     // powered on with a ticket, has not joined yet
	Attesting   State = "attesting"   // joined, its evidence and services are being checked
	Baking      State = "baking"      // healthy, watched before it takes users
	Quarantined State = "quarantined" // kept out with its first cause
	Standby     State = "standby"     // a spare: off, read back as off, until it is needed
)

// States are all of them, in the order of a life.
var States = []State{New, Serving, Draining, Wiping, Booting, Attesting, Baking, Quarantined, Standby}

// transitions is the whole table: from each state, where a server may go.
var transitions = map[State][]State{
	New:         {Wiping},
	Serving:     {Draining},
	Draining:    {Wiping},
	Wiping:      {Booting, Quarantined, Standby},
	Booting:     {Attesting, Wiping, Quarantined},
	Attesting:   {Baking, Wiping, Quarantined},
	Baking:      {Serving, Wiping, Quarantined},
	Quarantined: {Wiping},
	Standby:     {Wiping},
}

// Legal reports whether a server may go from one state to the other.
func Legal(from, to State) bool {
	for _, s := range transitions[from] {
		if s == to {
			return true
		}
	}
	return false
}

// Known reports whether it is a state at all.
func (s State) Known() bool { return len(transitions[s]) > 0 }

// InFlight reports whether a server is somewhere between leaving and serving again.
func (s State) InFlight() bool {
	switch s {
	case Draining, Wiping, Booting, Attesting, Baking:
		return true
	}
	return false
}
