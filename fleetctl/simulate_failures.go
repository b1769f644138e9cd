package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"mayfly/fleetctl/plan/simulate"
)

// Failures by name. What some is was chosen as a bad month of an ordinary fleet, many as one that nobody wants.
var (
	someFailures = simulate.Failures{Slow: 0.02, Failed: 0.01, Lying: 0.002, Steps: 1, Crashes: 2}
	manyFailures = simulate.Failures{Slow: 0.1, Failed: 0.05, Lying: 0.02, Steps: 5, Crashes: 10}
)

// Bounds of what may be asked for.
const (
	maxIncidents  = 1000
	maxSimulatedT = 30 * 24 * time.Hour
)

// parseFailures reads --failures: none, some, many, or KEY=VALUE,… on top of none.
func parseFailures(text string) (simulate.Failures, error) {
	var f simulate.Failures
	switch text {
	case "none":
		return f, nil
	case "some":
		return someFailures, nil
	case "many":
		return manyFailures, nil
	}
	shares := map[string]*float64{"slow": &f.Slow, "failed": &f.Failed, "lying": &f.Lying}
	counts := map[string]*int{"steps": &f.Steps, "crashes": &f.Crashes}
	spans := map[string]*time.Duration{"boot": &f.Boot, "away": &f.Away, "mend": &f.Mend}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		var err error
		switch {
		case !ok:
			return f, fmt.Errorf("%q: write none, some, many, or KEY=VALUE,…", part)
		case seen[key]:
			return f, fmt.Errorf("%s is there twice", key)
		case shares[key] != nil:
			*shares[key], err = parseShare(value)
		case counts[key] != nil:
			var n int
			if n, err = strconv.Atoi(value); err == nil && (n < 0 || n > maxIncidents) {
				err = fmt.Errorf("0 to %d", maxIncidents)
			}
			*counts[key] = n
		case spans[key] != nil:
			*spans[key], err = parseSpan(value)
		default:
			return f, fmt.Errorf("%q is unknown: slow, failed, lying, steps, crashes, away, mend, boot", key)
		}
		if err != nil {
			return f, fmt.Errorf("%s=%s: %w", key, value, err)
		}
		seen[key] = true
	}
	return f, nil
}

// parseComing reads --release: AFTER or AFTER=SHARE.
func parseComing(text string) (simulate.Release, error) {
	after, share, given := strings.Cut(text, "=")
	var r simulate.Release
	var err error
	if r.After, err = parseSpan(after); err != nil {
		return r, err
	}
	if given {
		r.Errors, err = parseShare(share)
	}
	return r, err
}

func parseShare(text string) (float64, error) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x >= 0 && x <= 1) {
		return 0, fmt.Errorf("a share is 0 to 1, such as 0.05")
	}
	return x, nil
}

func parseSpan(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxSimulatedT {
		return 0, fmt.Errorf(`a time is written "90s", "30m" or "48h", at most %s`, maxSimulatedT)
	}
	return d, nil
}
