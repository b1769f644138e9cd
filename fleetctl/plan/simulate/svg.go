package simulate

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Implementation constants of the drawing.
const (
	svgWidth, svgHeight = 900, 420
	svgLeft, svgRight   = 60, 20
	svgPanel            = 140
)

// SVG draws the result as an image: the same bytes for the same result, with a title and a description for those who do not see it, and
// without any script.
func (r Result) SVG() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="t d" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n", svgWidth, svgHeight, svgWidth, svgHeight)
	fmt.Fprintf(&b, "<title id=\"t\">%s</title>\n", escape(fmt.Sprintf("Fleet %s, %s to %s: capacity over its floor, and age", r.Fleet, r.Start.Format(time.DateOnly), r.End.Format(time.DateOnly))))
	least, oldest := 1.0, 0.0
	for _, s := range r.Samples {
		least, oldest = min(least, s.Margin), max(oldest, r.aged(s))
	}
	fmt.Fprintf(&b, "<desc id=\"d\">%s</desc>\n", escape(fmt.Sprintf(
		"%d servers, %d rotations. The region with the least room never had less than %.1f %% of its capacity over its floor. The oldest server that served was %.1f %% of max_age old. %d planned removals broke a floor, %d deadlines passed.",
		r.Servers, r.Rotations, 100*least, 100*oldest, r.Broken, r.Passed)))
	b.WriteString(`<rect width="100%" height="100%" fill="#ffffff"/>` + "\n")
	r.panel(&b, 40, "capacity over its floor, of the region with the least (share of its capacity)", "#0b5394", func(s Sample) float64 { return s.Margin })
	r.panel(&b, 40+svgPanel+50, "age of the oldest server (share of max_age; the line at the top is the deadline)", "#990000", r.aged)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (r Result) aged(s Sample) float64 {
	if r.MaxAge <= 0 {
		return 0
	}
	return float64(s.Age) / float64(r.MaxAge)
}

func (r Result) panel(b *bytes.Buffer, top int, title, color string, value func(Sample) float64) {
	width := svgWidth - svgLeft - svgRight
	fmt.Fprintf(b, `<g font-family="sans-serif" font-size="12" fill="#222222">`+"\n"+`<text x="%d" y="%d">%s</text>`+"\n", svgLeft, top-8, escape(title))
	for _, p := range []int{0, 25, 50, 75, 100} {
		y := top + svgPanel - svgPanel*p/100
		fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#bbbbbb"/><text x="%d" y="%d" text-anchor="end">%d %%</text>`+"\n", svgLeft, y, svgLeft+width, y, svgLeft-6, y+4, p)
	}
	span := r.End.Sub(r.Start)
	for k := range 7 {
		at := r.Start.Add(span * time.Duration(k) / 6)
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", svgLeft+width*k/6, top+svgPanel+16, at.Format("01-02 15:04"))
	}
	b.WriteString("</g>\n")
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, color)
	for i, s := range r.Samples {
		if i > 0 {
			b.WriteByte(' ')
		}
		x := float64(svgLeft)
		if span > 0 {
			x += float64(width) * float64(s.At.Sub(r.Start)) / float64(span)
		}
		fmt.Fprintf(b, "%.1f,%.1f", x, float64(top+svgPanel)-float64(svgPanel)*min(max(value(s), 0), 1))
	}
	b.WriteString("\"/>\n")
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// nearest are the regions that came nearest to their floors.
func (r Result) nearest(n int) []Region {
	all := slices.Clone(r.Regions)
	slices.SortStableFunc(all, func(a, b Region) int {
		// Shares of capacity, compared without division.
		x, y := (a.Least-a.Floor)*max(b.Capacity, 1), (b.Least-b.Floor)*max(a.Capacity, 1)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all[:min(n, len(all))]
}
