package plan

import (
	"testing"
	"time"
	_ "time/tzdata" // the tests' zones, whatever the machine has
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestMoment: gaps, overlaps, half hours, the southern half, jumps at midnight, a day that never was.
func TestMoment(t *testing.T) {
	for _, tt := range []struct {
		zone, day     string
		minute        int
		first, second string
	}{
		{"Europe/Stockholm", "2026-11-20", 2 * 60, "2026-11-20T01:00:00Z", "2026-11-20T01:00:00Z"},
		{"Europe/Stockholm", "2026-03-29", 2*60 + 30, "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"}, // spring: 02:00 is 03:00
		{"Europe/Stockholm", "2026-03-29", 3 * 60, "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"},
		{"Europe/Stockholm", "2026-10-25", 2*60 + 30, "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"}, // autumn: 02:30 twice
		{"Europe/Stockholm", "2026-10-25", 24 * 60, "2026-10-25T23:00:00Z", "2026-10-25T23:00:00Z"},
		{"America/New_York", "2026-03-08", 2*60 + 1, "2026-03-08T07:00:00Z", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-11-01", 60, "2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z"},
		{"Australia/Sydney", "2026-10-04", 2*60 + 15, "2026-10-03T16:00:00Z", "2026-10-03T16:00:00Z"}, // spring there
		{"Australia/Sydney", "2026-04-05", 2*60 + 15, "2026-04-04T15:15:00Z", "2026-04-04T16:15:00Z"},
		{"Australia/Lord_Howe", "2026-10-04", 2*60 + 15, "2026-10-03T15:30:00Z", "2026-10-03T15:30:00Z"}, // by half an hour
		{"Australia/Lord_Howe", "2026-04-05", 60 + 45, "2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"},
		{"Asia/Kolkata", "2026-06-01", 60, "2026-05-31T19:30:00Z", "2026-05-31T19:30:00Z"},
		{"Asia/Kathmandu", "2026-06-01", 0, "2026-05-31T18:15:00Z", "2026-05-31T18:15:00Z"},
		{"America/Santiago", "2026-09-06", 0, "2026-09-06T04:00:00Z", "2026-09-06T04:00:00Z"}, // midnight does not exist
		{"America/Santiago", "2026-04-04", 24 * 60, "2026-04-05T04:00:00Z", "2026-04-05T04:00:00Z"},
		{"America/Santiago", "2026-04-04", 23*60 + 30, "2026-04-05T02:30:00Z", "2026-04-05T03:30:00Z"},
		{"Pacific/Apia", "2011-12-30", 12 * 60, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z"}, // never was
	} {
		d, err := time.Parse(time.DateOnly, tt.day)
		if err != nil {
			t.Fatal(err)
		}
		for last, want := range map[bool]string{false: tt.first, true: tt.second} {
			if got := moment(zone(t, tt.zone), d.Year(), d.Month(), d.Day(), tt.minute, last).Format(time.RFC3339); got != want {
				t.Errorf("%s %s minute %d, last %v: got %s, want %s", tt.zone, tt.day, tt.minute, last, got, want)
			}
		}
	}
}
