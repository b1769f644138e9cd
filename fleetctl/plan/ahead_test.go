package plan

import (
	"testing"
	"time"

	"mayfly/inventory"
)

// TestCheckLooksAhead: rules that hold today, and not on every day of the week, are refused whatever day it is.
func TestCheckLooksAhead(t *testing.T) {
	fleet := Snapshot{Regions: []Region{{Name: "se", Floor: 8000}}}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		fleet.Servers = append(fleet.Servers, Server{Name: name, Region: "se", Capacity: 1000, State: inventory.Serving, Epoch: 1})
	}
	rules := Rules{MaxAge: 24 * time.Hour, MaxParallel: 10, DrainLimit: time.Minute, BootLimit: time.Minute, Bake: time.Minute}
	everyDay := []time.Weekday{0, 1, 2, 3, 4, 5, 6}
	for _, tt := range []struct {
		name    string
		windows []Window
		want    string
	}{
		{"always", []Window{{Days: everyDay, From: 0, To: 1440}}, ""},
		{"four days of the week", []Window{{Days: []time.Weekday{5, 6, 0, 1}, From: 0, To: 1440}}, WindowImpossible},
	} {
		for day := range 7 {
			now := time.Date(2026, 11, 20+day, 12, 0, 0, 0, time.UTC)
			r := rules
			r.Windows = tt.windows
			_, refused := Check(fleet, r, now)
			if tt.want == "" && len(refused) > 0 || tt.want != "" && (len(refused) != 1 || refused[0].Code != tt.want) {
				t.Errorf("%s, on a %s: got %v, want %q", tt.name, now.Weekday(), refused, tt.want)
			}
		}
	}
}
