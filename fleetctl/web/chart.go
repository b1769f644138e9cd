package web

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// What charts measure, in units of their own viewBox.
const (
	cellSize    = 8
	cellPitch   = 10
	cellsAcross = 24
	maxCells    = 192 // of one region, about; beyond, a cell stands for several servers
	ageHeight   = 60
)

// Shape is one path of a chart, with the class that paints it.
type Shape struct {
	Class string
	Path  string
}

// Cells are a region's servers as small squares, one path for each kind.
type Cells struct {
	Width, Height int
	Each          int // servers that a cell stands for
	Shapes        []Shape
}

// Cells draws the region's servers. Of a kind that is there at all at least one cell is.
func (r Region) Cells() Cells {
	each := max(1, (r.Servers+maxCells-1)/maxCells)
	c := Cells{Width: cellsAcross*cellPitch - 2, Each: each}
	i := 0
	for _, kind := range Kinds {
		var path strings.Builder
		for range (r.Kinds[kind] + each - 1) / each {
			fmt.Fprintf(&path, "M%d %dh%dv%dh-%dz", i%cellsAcross*cellPitch, i/cellsAcross*cellPitch, cellSize, cellSize, cellSize)
			if kind == Quarantine { // a cross, for whom colours are no help
				fmt.Fprintf(&path, "m1 1l%d %dm0 -%dl-%d %d", cellSize-2, cellSize-2, cellSize-2, cellSize-2, cellSize-2)
			}
			i++
		}
		if path.Len() > 0 {
			c.Shapes = append(c.Shapes, Shape{"k-" + string(kind), path.String()})
		}
	}
	c.Height = max(1, (i+cellsAcross-1)/cellsAcross)*cellPitch - 2
	return c
}

// Gauge is where things stand on a bar from 0 to 100.
func (r Region) Gauge() (g struct{ Serving, Floor string }) {
	g.Serving, g.Floor = share(r.Serving, r.Capacity), share(r.Floor, r.Capacity)
	return g
}

// Gauge is likewise.
func (f RoleFloor) Gauge() (g struct{ Serving, Floor string }) {
	whole := max(f.Serving, f.Floor) * 5 / 4
	g.Serving, g.Floor = share(f.Serving, whole), share(f.Floor, whole)
	return g
}

// share is part of whole in percent, at most 100.
func share(part, whole int) string {
	if whole <= 0 {
		return "0"
	}
	return decimal(min(100, 100*float64(part)/float64(whole)))
}

// decimal is a number with at most one digit after the point.
func decimal(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// AgeChart is the fleet's servers by how much of their life is over.
type AgeChart struct {
	Bars []AgeBar
	Most int
}

// AgeBar is one column of it.
type AgeBar struct {
	X, Y, Height, DueY, DueHeight int
	Age
}

// To is where the column ends.
func (b AgeBar) To() int { return b.From + 100/ageBins }

// AgeChart draws them.
func (v View) AgeChart() AgeChart {
	var c AgeChart
	for _, a := range v.Ages {
		c.Most = max(c.Most, a.Servers)
	}
	tall := func(n int) int {
		if n == 0 || c.Most == 0 {
			return 0
		}
		return max(1, int(math.Round(float64(n)*ageHeight/float64(c.Most))))
	}
	for i, a := range v.Ages {
		b := AgeBar{X: i * 12, Height: tall(a.Servers), DueHeight: tall(a.Due), Age: a}
		b.Y, b.DueY = ageHeight-b.Height, ageHeight-b.DueHeight
		c.Bars = append(c.Bars, b)
	}
	return c
}

// UsedPercent and DuePercent are for a server's bar.
func (s Server) UsedPercent() string { return decimal(100 * s.Used) }

// DuePercent is where on the bar the server becomes due.
func (s Server) DuePercent() string { return decimal(100 * s.DueAt) }

// TrainScale is the error rates of a train on a bar: its end is three times what is allowed, or a little more than the upper bound.
func (t Train) Scale() (c struct{ Rate, Lower, Width, Max, End string }) {
	end := max(3*t.MaxErrors, 0.01)
	rate := 0.0
	if t.Attempts > 0 {
		rate = float64(t.Failed) / float64(t.Attempts)
	}
	if t.Upper > end {
		end = min(1, t.Upper*1.1)
	}
	at := func(f float64) string { return decimal(100 * min(1, f/end)) }
	c.Rate, c.Lower, c.Max, c.Width, c.End = at(rate), at(t.Lower), at(t.MaxErrors), decimal(100*max(0, min(1, t.Upper/end)-t.Lower/end)), percent(end)
	return c
}

// percent is a rate in words.
func percent(f float64) string { return decimal(100*f) + " %" }

// group is a number with a narrow space between thousands.
func group(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// mbps is a capacity for people.
func mbps(n int) string {
	switch {
	case n >= 1_000_000:
		return strconv.FormatFloat(float64(n)/1_000_000, 'f', 2, 64) + " Tbit/s"
	case n >= 10_000:
		return strconv.FormatFloat(float64(n)/1000, 'f', 1, 64) + " Gbit/s"
	}
	return group(n) + " Mbit/s"
}

// span is a time in seconds for people: two units, the larger first.
func span(seconds int64) string {
	sign := ""
	if seconds < 0 {
		sign, seconds = "−", -seconds
	}
	d := time.Duration(seconds) * time.Second
	days, hours, minutes := int(d/(24*time.Hour)), int(d/time.Hour)%24, int(d/time.Minute)%60
	switch {
	case days > 0:
		return fmt.Sprintf("%s%d d %02d h", sign, days, hours)
	case hours > 0:
		return fmt.Sprintf("%s%d h %02d min", sign, hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%s%d min %02d s", sign, minutes, seconds%60)
	}
	return fmt.Sprintf("%s%d s", sign, seconds)
}
