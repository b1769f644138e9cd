package main

import "testing"

func TestErrorLine(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"fleetctl: release 2 of fleet lab\nfleetctl: error: ana has signed it already\nfleetctl: hint: people", "fleetctl: error: ana has signed it already"},
		{"fleetctl: error: no\nfleetctl: hint: error: also here", "fleetctl: error: no"},
		{"killed\nby somebody", "killed"},
		{"", ""},
	} {
		if got := errorLine(tt.said); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.said, got, tt.want)
		}
	}
}
