// Package bench measures mayfly against others on one machine. Every measurement is paired: ours and theirs run in turn, under
// the same conditions, and what counts is the median of the pairs' ratios. Nothing here passes or fails by a figure.
package bench

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Report is what a benchmark prints with -o json.
type Report struct {
	Bench   string   `json:"bench"`
	Results []Result `json:"results"`
}

// Result is one figure: medians, and the ratio that is more when we are better.
type Result struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Ours   float64 `json:"ours"`
	Peer   string  `json:"peer,omitempty"`
	Theirs float64 `json:"theirs,omitzero"`
	Ratio  float64 `json:"ratio,omitzero"`
}

// WriteTable prints the report for people.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tOURS\tTHEIRS\tUNIT\tRATIO\tPEER")
	for _, x := range r.Results {
		if x.Peer == "" {
			fmt.Fprintf(t, "%s\t%.3f\t\t%s\t\t\n", x.Name, x.Ours, x.Unit)
			continue
		}
		fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%s\t%.2f\t%s\n", x.Name, x.Ours, x.Theirs, x.Unit, x.Ratio, x.Peer)
	}
	return t.Flush()
}

// paired makes a result of runs that were made in turn. For a cost, less is better: the ratio is theirs over ours.
func paired(name, unit, peer string, ours, theirs []float64, cost bool) Result {
	var ratios []float64
	for i := range min(len(ours), len(theirs)) {
		if cost {
			ratios = append(ratios, theirs[i]/ours[i])
		} else {
			ratios = append(ratios, ours[i]/theirs[i])
		}
	}
	return Result{Name: name, Unit: unit, Ours: median(ours), Peer: peer, Theirs: median(theirs), Ratio: median(ratios)}
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
