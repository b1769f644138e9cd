package main

import (
	"testing"
	"time"

	"mayfly/rebuild/join"
)

// TestRevocationBound adds up the longest way of a revocation from the signed bundle to this machine's sshd, where the network or the
// controller was away and has just come back: the sum is what the manual promises. What the controller's half takes is in fleetctl
// (policyInterval) and rebuild/boot (watchInterval).
func TestRevocationBound(t *testing.T) {
	const (
		promised   = 60 * time.Second
		controller = time.Second + 500*time.Millisecond
	)
	noticed := time.Duration(join.StreamSilence) // that the stream is dead
	pause := maxStreamPause * 5 / 4              // before the next try, with jitter
	cut := time.Duration(cutRounds) * cutPause   // of sessions
	if sum := controller + noticed + pause + join.StreamTimeout + cut + policyLook; sum > promised {
		t.Errorf("at most %s, promised %s", sum, promised)
	} else {
		t.Logf("at most %s", sum)
	}
}
