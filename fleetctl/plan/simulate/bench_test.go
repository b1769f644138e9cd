package simulate

import (
	"fmt"
	"testing"
	"time"
	_ "time/tzdata"
)

var start = time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC) // the clocks of two of the zones change on the way

func zones(t testing.TB) map[string]*time.Location {
	all := map[string]*time.Location{}
	for _, n := range []string{"Europe/Stockholm", "America/New_York", "Asia/Kolkata", "Australia/Sydney"} {
		z, err := time.LoadLocation(n)
		if err != nil {
			t.Fatal(err)
		}
		all[n] = z
	}
	return all
}

func BenchmarkRun(b *testing.B) {
	for _, n := range []struct{ servers, regions int }{{3000, 105}, {100000, 1000}, {1000000, 1000}} {
		b.Run(fmt.Sprint(n.servers), func(b *testing.B) {
			c := Fleet(n.servers, n.regions, start, zones(b))
			for b.Loop() {
				r, refused := Run(c)
				if len(refused) > 0 {
					b.Fatal(refused[0])
				}
				b.ReportMetric(float64(r.Rotations), "rotations")
				b.ReportMetric(float64(r.Passed), "passed")
				b.ReportMetric(float64(r.Forced), "forced")
				b.ReportMetric(float64(r.Quarantines), "quarantines")
				b.ReportMetric(float64(r.Broken), "broken")
				b.ReportMetric(r.WorstAge.Hours()/24, "worst-days")
			}
		})
	}
}

func BenchmarkPatch(b *testing.B) {
	c := Patch(3000, start)
	for b.Loop() {
		r, refused := Run(c)
		if len(refused) > 0 {
			b.Fatal(refused)
		}
		b.ReportMetric(r.Done.Sub(start).Hours(), "hours")
	}
}
