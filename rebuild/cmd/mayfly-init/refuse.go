package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// swapActive reads /proc/swaps: a heading, and a line for each swap area.
func swapActive(swaps []byte) error {
	lines := strings.Split(strings.TrimSpace(string(swaps)), "\n")
	switch {
	case !strings.HasPrefix(lines[0], "Filename"):
		return refuse(codeSwap, "/proc/swaps is not what it should be")
	case len(lines) > 1:
		return refuse(codeSwap, "%d swap areas", len(lines)-1)
	}
	return nil
}

// clockBefore refuses a clock that is earlier than the release: certificates and expiries would mean nothing.
func clockBefore(now, notBefore time.Time) error {
	if now.Before(notBefore) {
		return refuse(codeClock, "it is %s, the release begins at %s", now.Format(time.RFC3339), notBefore.Format(time.RFC3339))
	}
	return nil
}

// code is the reason code of any error of a boot.
func code(err error) (string, string) {
	var r *refusal
	if errors.As(err, &r) {
		return r.code, r.detail.Error()
	}
	return codeUnexpected, fmt.Sprint(err)
}
