package web

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"mayfly/fleetctl/plan"
	"mayfly/inventory/store"
)

// Bounds of words that servers and people chose.
const (
	maxWord         = 100
	maxText         = 500
	maxConsoleLines = 20
	maxConsoleLine  = 200
)

// clean makes text printable and short: control characters, and those that turn or hide what stands beside them, are shown as their number.
func clean(text string, limit int) string {
	if plain(text, limit) {
		return text
	}
	var b strings.Builder
	n := 0
	for i, r := range text {
		if n++; n > limit {
			b.WriteString("…")
			break
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			b.WriteString(`\x` + hex.EncodeToString([]byte{text[i]}))
		case unicode.IsGraphic(r) && !unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Mn, r) && !unicode.Is(unicode.Me, r):
			b.WriteRune(r)
		default:
			b.WriteString(`\u` + strconv.FormatInt(int64(r)|0x10000, 16)[1:])
		}
	}
	return b.String()
}

// plain reports whether text is short printable ASCII, as nearly all is.
func plain(text string, limit int) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return len(text) <= limit
}

// console is the last lines of a console.
func console(text string) []string {
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(text, "\r", ""), "\n"), "\n")
	if text == "" {
		return []string{}
	}
	lines = slices.Clone(lines[max(0, len(lines)-maxConsoleLines):])
	for i, l := range lines {
		lines[i] = clean(l, maxConsoleLine)
	}
	return lines
}

// causeOf takes a cause apart, as fleetctl/rotate puts it together: "WORDS (console: LINE | LINE)".
func causeOf(text string) (cause string, lines []string) {
	cause, rest, ok := strings.Cut(text, " (console: ")
	if !ok || !strings.HasSuffix(rest, ")") {
		return text, []string{}
	}
	return cause, console(strings.ReplaceAll(strings.TrimSuffix(rest, ")"), " | ", "\n"))
}

func refusalOf(r plan.Refusal) Refusal {
	return Refusal{Code: r.Code, Region: r.Region, Detail: r.Detail, Change: r.Change}
}

func pauseOf(p store.Pause) Pause {
	return Pause{On: p.On, By: clean(p.By, maxWord), Why: clean(p.Why, maxText), At: when(p.At)}
}

func runOf(in Input) Run {
	r := in.Run
	return Run{ID: r.ID, Open: in.Open, Began: when(r.Began), Ended: when(r.Ended), Result: clean(r.Result, maxText), Cancelled: when(r.Cancelled), By: clean(r.By, maxWord)}
}

// releases joins what is in use, what was marked and what servers run, the newest first.
func (v *View) releases(in Input) {
	all := map[uint64]*Release{}
	of := func(version uint64) *Release {
		r := all[version]
		if r == nil {
			r = &Release{Version: version}
			all[version] = r
		}
		return r
	}
	if in.Use.Version != 0 {
		r := of(in.Use.Version)
		r.InUse, r.Digest, r.Used, r.UsedBy = true, clean(in.Use.Digest, maxWord), when(in.Use.At), clean(in.Use.By, maxWord)
	} else if in.Snapshot.Release != 0 {
		of(in.Snapshot.Release).InUse = true
	}
	for _, m := range in.Marks {
		r := of(m.Version)
		if r.Mark == store.Bad {
			continue // for good, whatever it was before
		}
		r.Mark, r.Marked, r.By, r.Why = clean(m.Mark, maxWord), when(m.At), clean(m.By, maxWord), clean(m.Why, maxText)
		if r.Digest == "" {
			r.Digest = clean(m.Digest, maxWord)
		}
	}
	for _, s := range v.Servers {
		if n, err := strconv.ParseUint(s.Release, 10, 64); err == nil && s.Kind != StandsBy && s.Kind != NeverBooted {
			of(n).Servers++
		}
	}
	v.Releases = []Release{}
	for _, r := range all {
		v.Releases = append(v.Releases, *r)
	}
	slices.SortFunc(v.Releases, func(a, b Release) int { return cmp.Compare(b.Version, a.Version) })
}

func (v *View) quarantine(in Input, known map[string]store.Server) {
	v.Quarantine = []Quarantined{}
	for _, s := range v.Servers {
		if s.Kind != Quarantine || len(v.Quarantine) == maxQuarantine {
			continue
		}
		f := in.Failures[s.Name]
		detail := f.Detail
		if f.Reason != "" {
			detail = strings.TrimSuffix(f.Reason+": "+f.Detail, ": ")
		}
		cause, lines := causeOf(known[s.Name].Cause)
		if f.Console != "" {
			lines = console(f.Console)
		}
		v.Quarantine = append(v.Quarantine, Quarantined{Server: s.Name, Region: s.Region, Epoch: s.Epoch, Since: when(known[s.Name].Since),
			Cause: clean(cause, maxText), Detail: clean(detail, maxText), Console: lines})
	}
}

func (v *View) controllers(in Input) {
	all := map[string]*Controller{}
	for _, c := range in.Claims {
		name := clean(c.Holder, maxWord)
		k := all[name]
		if k == nil {
			k = &Controller{Name: name}
			all[name] = k
		}
		k.Claims++
		if len(k.Servers) < maxClaimed {
			k.Servers = append(k.Servers, clean(c.Server, maxWord))
		}
		if k.Expires == nil || c.Expires.Before(*k.Expires) {
			k.Expires = when(c.Expires)
		}
	}
	v.Controllers = []Controller{}
	for _, k := range all {
		slices.Sort(k.Servers)
		v.Controllers = append(v.Controllers, *k)
	}
	slices.SortFunc(v.Controllers, func(a, b Controller) int { return strings.Compare(a.Name, b.Name) })
}

func (v *View) ledger(in Input) {
	v.Ledger = in.Ledger
	if v.Ledger.Witnesses == nil {
		v.Ledger.Witnesses = []string{}
	}
	v.Ledger.Proven, v.Ledger.Lives = 0, 0
	for _, s := range v.Servers {
		if s.Epoch == 0 || s.Booted == nil {
			continue
		}
		v.Ledger.Lives++
		if s.Entry != nil && s.Entry.Proven {
			v.Ledger.Proven++
		}
	}
}
