package simulate

import (
	"fmt"
	"strings"
	"time"
)

// Implementation constants.
const (
	textWidth  = 72
	textHeight = 8
)

// Text draws the result with letters: what happened in numbers, capacity and age over time, and the regions that came nearest to their floors.
func (r Result) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fleet %s: %d servers, %s to %s, seed %d\n", r.Fleet, r.Servers, r.Start.Format("2006-01-02 15:04"), r.End.Format("2006-01-02 15:04 UTC"), r.Seed)
	fmt.Fprintf(&b, "rotations %d, boots that failed %d, quarantined %d, at most %d out at once, %d in flight at the end\n", r.Rotations, r.Failures, r.Quarantines, r.MostOut, r.InFlight)
	fmt.Fprintf(&b, "floors broken by planned removals: %d; deadlines met before a server could leave: %d; windows or rate overruled by a deadline: %d\n", r.Broken, r.Passed, r.Forced)
	fmt.Fprintf(&b, "worst age %s of %s\n", r.WorstAge.Round(time.Minute), r.MaxAge)
	r.graph(&b, "capacity over its floor, region with the least (share of its capacity)", func(s Sample) float64 { return s.Margin })
	r.graph(&b, "age of the oldest server (share of max_age)", func(s Sample) float64 { return float64(s.Age) / float64(r.MaxAge) })
	b.WriteString("\nregions nearest to their floors\n")
	for _, g := range r.nearest(8) {
		fmt.Fprintf(&b, "  %-16s least %d of %d, floor %d, at %s\n", g.Name, g.Least, g.Capacity, g.Floor, g.LeastAt.Format("2006-01-02 15:04 UTC"))
	}
	for _, t := range r.Train {
		fmt.Fprintf(&b, "release %d, stage %s (%d of %d): %s; %s\n", t.Release, t.Stage, t.Number, t.Stages, t.Verdict, t.Why)
	}
	return b.String()
}

// graph draws one line of the chart; each column is the worst of its samples.
func (r Result) graph(b *strings.Builder, title string, value func(Sample) float64) {
	if len(r.Samples) == 0 {
		return
	}
	columns := min(textWidth, len(r.Samples))
	rows := make([][]byte, textHeight)
	for y := range rows {
		rows[y] = []byte(strings.Repeat(" ", columns))
	}
	for x := range columns {
		v := value(r.Samples[x*len(r.Samples)/columns])
		y := textHeight - 1 - int(min(max(v, 0), 0.999)*textHeight)
		rows[y][x] = '*'
	}
	fmt.Fprintf(b, "\n%s\n", title)
	for y, row := range rows {
		fmt.Fprintf(b, "%4d%% |%s\n", (textHeight-y)*100/textHeight, strings.TrimRight(string(row), " "))
	}
	fmt.Fprintf(b, "   0%% +%s\n", strings.Repeat("-", columns))
}
