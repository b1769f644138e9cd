package client

import (
	"testing"
	"time"
)

// A drain does not lengthen a life whose end the ledger has proved.
func TestDrainWithinLife(t *testing.T) {
	end := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name        string
		proved, say time.Time
		want        time.Time
	}{
		{"nothing proved", time.Time{}, end, end},
		{"the server says later", end, end.Add(time.Hour), end},
		{"the server says earlier", end, end.Add(-time.Minute), end.Add(-time.Minute)},
		{"the server does not say", end, time.Time{}, end},
	} {
		c := &client{deadline: tt.proved}
		c.heard(signal{draining: true, deadline: tt.say})
		if !c.deadline.Equal(tt.want) || c.leaving != reasonDraining {
			t.Errorf("%s: leaves at %s (%s), want %s", tt.name, c.deadline, c.leaving, tt.want)
		}
	}
}
