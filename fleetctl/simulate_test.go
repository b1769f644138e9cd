package main

import (
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/plan/simulate"
	"mayfly/inventory"
	"mayfly/policies"
)

func TestParseFailures(t *testing.T) {
	for _, tt := range []struct {
		text string
		want simulate.Failures
		err  string
	}{
		{"none", simulate.Failures{}, ""},
		{"some", someFailures, ""},
		{"many", manyFailures, ""},
		{"slow=0.05,failed=1,lying=0", simulate.Failures{Slow: 0.05, Failed: 1}, ""},
		{"steps=2,crashes=3,away=1h,mend=24h,boot=4m", simulate.Failures{Steps: 2, Crashes: 3, Away: time.Hour, Mend: 24 * time.Hour, Boot: 4 * time.Minute}, ""},
		{"", simulate.Failures{}, "write none, some, many"},
		{"slow", simulate.Failures{}, "write none, some, many"},
		{"quick=1", simulate.Failures{}, `"quick" is unknown`},
		{"slow=1.5", simulate.Failures{}, "a share is 0 to 1"},
		{"slow=nan", simulate.Failures{}, "a share is 0 to 1"},
		{"slow=-0.1", simulate.Failures{}, "a share is 0 to 1"},
		{"slow=0,slow=1", simulate.Failures{}, "there twice"},
		{"steps=-1", simulate.Failures{}, "0 to 1000"},
		{"crashes=1000000", simulate.Failures{}, "0 to 1000"},
		{"away=0s", simulate.Failures{}, "a time is written"},
		{"away=10000h", simulate.Failures{}, "a time is written"},
		{"boot=5", simulate.Failures{}, "a time is written"},
	} {
		got, err := parseFailures(tt.text)
		if tt.err == "" && (err != nil || got != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: got %+v, %v, want %+v %q", tt.text, got, err, tt.want, tt.err)
		}
	}
}

func TestParseComing(t *testing.T) {
	for _, tt := range []struct {
		text string
		want simulate.Release
		err  bool
	}{
		{"48h", simulate.Release{After: 48 * time.Hour}, false}, {"30m=0.3", simulate.Release{After: 30 * time.Minute, Errors: 0.3}, false},
		{"", simulate.Release{}, true}, {"48h=", simulate.Release{}, true}, {"48h=2", simulate.Release{}, true}, {"-1h", simulate.Release{}, true},
	} {
		if got, err := parseComing(tt.text); (err != nil) != tt.err || err == nil && got != tt.want {
			t.Errorf("%q: got %+v, %v", tt.text, got, err)
		}
	}
}

// TestFresh: the fleet that a simulation begins with is whole, and no two servers of a region have the same deadline.
func TestFresh(t *testing.T) {
	f := inventory.Fleet{Name: "f", Regions: []inventory.Region{{Name: "se"}}, Racks: []inventory.Rack{{Name: "a", Region: "se"}}}
	for _, name := range []string{"s-1", "s-2", "s-3"} {
		f.Servers = append(f.Servers, inventory.Server{Name: name, Rack: "a", Role: inventory.RoleVPN, Capacity: 10})
	}
	now, age := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), 24*time.Hour
	s := fresh(f, policies.Policy{Version: 4, Rotation: policies.Rotation{MaxAge: policies.Duration(age)}}, now)
	seen := map[time.Time]bool{}
	for _, x := range s.Servers {
		if x.State != inventory.Serving || x.Release != s.Release || seen[x.Deadline] || x.Deadline.After(now.Add(age)) || !x.Deadline.After(now.Add(age/2)) {
			t.Errorf("got %+v", x)
		}
		seen[x.Deadline] = true
	}
}

// TestClock: a moment is shown by the clocks of its place and in UTC, across a change of the clocks.
func TestClock(t *testing.T) {
	zone := zones(policies.Rotation{Windows: []policies.RotationWindow{{Zone: "Europe/Stockholm"}, {Zone: "Europe/Stokholm"}}})
	if zone["Europe/Stokholm"] != nil || zone["Europe/Stockholm"] == nil {
		t.Fatalf("zones: got %v", zone)
	}
	for _, tt := range []struct {
		at   string
		zone *time.Location
		want string
	}{
		{"2027-03-28T00:59:00Z", zone["Europe/Stockholm"], "Sun 2027-03-28 01:59 Europe/Stockholm (Sun 2027-03-28 00:59 UTC)"},
		{"2027-03-28T01:00:00Z", zone["Europe/Stockholm"], "Sun 2027-03-28 03:00 Europe/Stockholm (Sun 2027-03-28 01:00 UTC)"},
		{"2027-03-28T01:00:00Z", time.UTC, "Sun 2027-03-28 01:00 UTC"},
		{"2027-03-28T01:00:00Z", nil, "Sun 2027-03-28 01:00 UTC"},
	} {
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := clock(at, tt.zone); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if got := clock(time.Time{}, time.UTC); got != "-" {
		t.Errorf("no time: got %q", got)
	}
	p := policies.Policy{Rotation: policies.Rotation{Windows: []policies.RotationWindow{{Zone: ""}, {Zone: "Europe/Stokholm"}}}}
	if err := zonesExist(p); err == nil || !strings.Contains(err.Error(), `rotation.window[1].zone: zone "Europe/Stokholm"`) {
		t.Errorf("an unknown zone: got %v", err)
	}
}
