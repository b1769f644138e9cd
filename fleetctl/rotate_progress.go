package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"

	"mayfly/fleetctl/rotate"
)

// Implementation constants of what is shown of a run that goes on.
const (
	barServers = 12                     // under way, at most
	barEvery   = 200 * time.Millisecond // it is drawn again
)

// bar shows how far a run is: on a terminal one block that is drawn again below the lines that are said; elsewhere the lines alone.
type bar struct {
	out   io.Writer
	width func() int // of the terminal; nil elsewhere

	mu    sync.Mutex // guards the rest
	lines int        // of the block that is there now
	drawn time.Time
	block []string
}

func newBar(out io.Writer) *bar {
	b := &bar{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.width = func() int {
			if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
				return w
			}
			return 80
		}
	}
	return b
}

// Write says lines, above the block.
func (b *bar) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.width == nil {
		return b.out.Write(p)
	}
	var w bytes.Buffer
	b.erase(&w)
	w.Write(p)
	b.draw(&w)
	if _, err := b.out.Write(w.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show draws how far the run is.
func (b *bar) show(p rotate.Progress) {
	if b.width == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.block = blockOf(p)
	if time.Since(b.drawn) < barEvery {
		return
	}
	b.drawn = time.Now()
	var w bytes.Buffer
	b.erase(&w)
	b.draw(&w)
	_, _ = b.out.Write(w.Bytes()) // what cannot be shown keeps nobody
}

// clear takes the block away.
func (b *bar) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.width == nil {
		return
	}
	var w bytes.Buffer
	b.erase(&w)
	b.block = nil
	_, _ = b.out.Write(w.Bytes())
}

// erase goes up to the block's first line and empties the screen from there.
func (b *bar) erase(w io.Writer) {
	if b.lines > 0 {
		fmt.Fprintf(w, "\x1b[%dA\r\x1b[J", b.lines)
	}
	b.lines = 0
}

func (b *bar) draw(w io.Writer) {
	width := b.width()
	for _, line := range b.block {
		line = visible(line)
		fmt.Fprintln(w, line[:min(len(line), width-1)])
	}
	b.lines = len(b.block)
}

// blockOf is a run in a few lines: its regions, what is under way, its train.
func blockOf(p rotate.Progress) []string {
	lines := []string{fmt.Sprintf("run %d: %d ended, %d under way, %d left", p.Run, p.Ended, len(p.Under), p.Left)}
	if p.Halted != "" {
		lines[0] += "; " + p.Halted
	}
	for _, g := range p.Plan.Regions {
		lines = append(lines, fmt.Sprintf("  %-12s serving %7d of %7d Mbit/s, floor %7d", g.Name, g.Serving, g.Capacity, g.Floor))
	}
	if t := p.Plan.Train; t != nil {
		lines = append(lines, fmt.Sprintf("  train        release %d, stage %s (%d of %d), reaches %d of %d: %s", t.Release, t.Stage, t.Number, t.Stages, t.Reach, t.Servers, t.Verdict))
	}
	under := slices.Clone(p.Under)
	slices.SortStableFunc(under, func(a, b rotate.Underway) int { return a.Since.Compare(b.Since) })
	for i, s := range under {
		if i == barServers {
			lines = append(lines, fmt.Sprintf("  and %d more", len(under)-barServers))
			break
		}
		where := ""
		if !s.Here {
			where = ", carried by another process"
		}
		lines = append(lines, fmt.Sprintf("  %-16s %-10s for %s, life %d%s", s.Name, s.State, p.At.Sub(s.Since).Round(time.Second), s.Epoch, where))
	}
	return lines
}
