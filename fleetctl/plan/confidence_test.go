package plan

import (
	"math"
	"testing"
)

// TestBounds: against published tables of exact binomial limits (one side at 0.025 is the two-sided 95 % interval), and closed forms.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		failed, attempts int
		alpha            float64
		lower, upper     float64
	}{
		{0, 0, 0.05, 0, 1},
		{0, 10, 0.025, 0, 0.3085},
		{1, 10, 0.025, 0.0025, 0.4450},
		{5, 10, 0.025, 0.1871, 0.8129},
		{10, 10, 0.025, 0.6915, 1},
		{1, 100, 0.025, 0.00025, 0.0545},
		{10, 100, 0.025, 0.0490, 0.1762},
		{50, 100, 0.025, 0.3983, 0.6017},
		{0, 59, 0.05, 0, 1 - math.Pow(0.05, 1.0/59)}, // the rule of 59: under 5 %
		{2, 2, 0.05, math.Sqrt(0.05), 1},
		{0, 100000, 0.05, 0, 1 - math.Pow(0.05, 1.0/100000)},
		{1000, 100000, 0.025, 0.00939, 0.01064},
	} {
		lower, upper := bounds(tt.failed, tt.attempts, tt.alpha)
		if math.Abs(lower-tt.lower) > 6e-5 || math.Abs(upper-tt.upper) > 6e-5 {
			t.Errorf("%d of %d at %v: got %.5f to %.5f, want %.5f to %.5f", tt.failed, tt.attempts, tt.alpha, lower, upper, tt.lower, tt.upper)
		}
	}
}
