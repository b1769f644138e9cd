package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
)

// bundleInForce is what DIR/bundle.json says, for comparison with what is to follow it; nil where there is none.
func (d state) bundleInForce() (*bundle.Bundle, error) {
	data, err := read(d.bundleFile(), "`fleetctl policy bundle` makes it")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := bundle.Parse(data)
	if err != nil {
		return nil, hint.New(fmt.Errorf("%s: %w", d.bundleFile(), err), "put the bundle that is in force back, with its signatures")
	}
	return b, nil
}

// showHistory says which commit is believed unseen and which paths take two others, and what of it differs from the policy in force: whoever signs
// answers for everything before that commit.
func showHistory(p policies.Policy, was *bundle.Bundle) []string {
	h := p.History
	var before policies.History
	known := was != nil
	if known {
		before = was.Policy.History
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch {
	case !h.On() && before.On():
		say("HISTORY IS NOT CHECKED ANY MORE: policy %d believed commit %s, and asked for signed and approved commits from there on", was.Version, before.From)
	case !h.On():
		say("no [history]: images are built from sources that nobody has to sign or approve")
	case known && before.On() && before.From != h.From:
		say("history: commit %s, and ALL BEFORE IT, is believed; policy %d believed %s: verify-history has to pass to it first, under that policy", h.From, was.Version, before.From)
	default:
		say("history: commit %s, and all before it, is believed; every later one has to be signed and approved", h.From)
	}
	for _, path := range before.Deep {
		if h.On() && !slices.Contains(h.Deep, path) {
			say("history: %+q TAKES TWO OTHERS NO MORE", path)
		}
	}
	for _, path := range h.Deep {
		what := ""
		if known && !slices.Contains(before.Deep, path) {
			what = ", new"
		}
		say("history: %+q takes two others%s", path, what)
	}
	if h.On() && len(h.Deep) == 0 {
		say("history: no path takes two others")
	}
	return lines
}

// noteHistory says of [history] what an approver will be shown, unless there is none and was none.
func (d state) noteHistory(c *command.Call, p policies.Policy) error {
	was, err := d.bundleInForce()
	if err != nil || !p.History.On() && (was == nil || !was.Policy.History.On()) {
		return err
	}
	for _, line := range showHistory(p, was) {
		fmt.Fprintf(c.Stderr, "fleetctl: note: %s\n", join.Printable(line, maxShownLine))
	}
	return nil
}
